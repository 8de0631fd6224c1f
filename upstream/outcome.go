package upstream

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/reply"
)

// outcome is the result of the latest requests to a registry. It is safe for
// concurrent use.
type outcome struct {
	mu       sync.Mutex // guards what follows
	answered time.Time
	failure  string
	failed   time.Time
}

// note records how a request ended. One that its client abandoned says nothing, nor does
// one that the upstream was offline for, nor the refusal of a client's own login.
func (o *outcome) note(ctx context.Context, err error) {
	now := time.Now()
	if _, ofClient := auth.Of(ctx); ofClient && errors.Is(err, fs.ErrPermission) {
		err = nil // the upstream answered as it should
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		o.mu.Lock()
		defer o.mu.Unlock()
		o.answered = now
	case !reply.CallerLeft(ctx) && !offline.Is(err):
		text := legible(err)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.failure, o.failed = text, now
	}
}

// latest returns when a request was last answered, and the last failure and its
// time.
func (o *outcome) latest() (answered time.Time, failure string, failed time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.answered, o.failure, o.failed
}

// maxLegible bounds the text of an error, in bytes. Some of it is the upstream's.
const maxLegible = 400

// legible returns an error as one line of valid text.
func legible(err error) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "�")), " ")
	if len(text) <= maxLegible {
		return text
	}
	end := maxLegible
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
