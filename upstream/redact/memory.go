package redact

import (
	"context"
	"net/http"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Memory remembers the credentials that were sent to one upstream, its token services
// and its storage: any of them may repeat in an error what another one got. It is
// safe for concurrent use.
type Memory struct {
	sent *lru.Cache[string, struct{}] // values of Authorization headers, and of forms
}

// maxRemembered bounds the credentials that are remembered: a login, and the tokens
// of the repositories that were asked for last.
const maxRemembered = 128

// NewMemory returns one without credentials.
func NewMemory() *Memory {
	sent, _ := lru.New[string, struct{}](maxRemembered) // fails only for a size that is not positive
	return &Memory{sent}
}

// Sending returns a request that is about to be sent, for which [Of] knows all that
// was sent before.
func (m *Memory) Sending(req *http.Request) *http.Request {
	for _, secret := range credentials(req) {
		m.sent.Add(secret, struct{}{})
	}
	return req.WithContext(context.WithValue(req.Context(), memoryKey{}, m))
}

type memoryKey struct{}

// remembered returns what was sent before a request.
func remembered(req *http.Request) []string {
	if m, ok := req.Context().Value(memoryKey{}).(*Memory); ok {
		return m.sent.Keys()
	}
	return nil
}
