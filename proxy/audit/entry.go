package audit

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Version is that of the form of a line. It changes when a field changes its meaning or goes.
const Version = 1

// Why says how a decision came about.
type Why string

// The values of Why. Readers of the file rely on them.
const (
	Upstream      Why = "upstream"       // the upstream said so
	Cached        Why = "cached"         // the cache has it, and need not ask
	Stale         Why = "stale"          // the cache has it, and the upstream could not be asked
	Remembered    Why = "remembered"     // the upstream has said before what this client may have
	Offline       Why = "offline"        // the upstream cannot be asked now
	NotFound      Why = "not_found"      // the upstream has no such image
	Refused       Why = "refused"        // the upstream refuses it
	Token         Why = "token"          // the client's token is not good for it
	NotConfigured Why = "not_configured" // the configuration has no upstream for it
	NotAllowed    Why = "not_allowed"    // the configuration does not allow the repository
	Policy        Why = "policy"         // a rule of the policy refuses it
	Undecided     Why = "undecided"      // whether the policy allows it cannot be decided now
	Failed        Why = "failed"         // the upstream could not be asked, or its answer was not valid
)

// Entry is one decision about an image. FORMAT.md describes its form. No field is a secret.
type Entry struct {
	Time       time.Time
	Client     string // the address
	Agent      string // the header User-Agent as it came: only names of products are written
	Peer       string // the name in the client's certificate
	User       string // the client's name, or that in its credential
	Method     string
	Upstream   string
	Repository string
	Reference  string
	Digest     string
	Allowed    bool
	Why        Why
	// Warned is why a rule whose mode is warn would not allow the image if it were enforced: Policy or Undecided; "" if
	// it would.
	Warned Why
}

// line is the form of an Entry in the file.
type line struct {
	V          int    `json:"v"`
	Time       string `json:"time"`
	Client     string `json:"client"`
	Agent      string `json:"agent,omitempty"`
	Peer       string `json:"peer,omitempty"`
	User       string `json:"user,omitempty"`
	Method     string `json:"method"`
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
	Digest     string `json:"digest,omitempty"`
	Allowed    bool   `json:"allowed"`
	Why        Why    `json:"why"`
	Warned     Why    `json:"warned,omitempty"`
}

const (
	// maxField bounds each text of a line, in bytes before it is escaped. The longest valid
	// repository has 255.
	maxField = 256
	// maxProducts bounds the names of an agent. podman and Docker send at most six.
	maxProducts = 6
)

// encode returns the line of an entry, with its end.
func (e Entry) encode() ([]byte, error) {
	raw, err := json.Marshal(line{
		V: Version, Time: e.Time.UTC().Format(time.RFC3339Nano),
		Client: cut(e.Client), Agent: products(e.Agent), Peer: cut(e.Peer), User: cut(e.User), Method: cut(e.Method),
		Upstream: cut(e.Upstream), Repository: cut(e.Repository), Reference: cut(e.Reference), Digest: cut(e.Digest),
		Allowed: e.Allowed, Why: e.Why, Warned: e.Warned,
	})
	if err != nil {
		return nil, fmt.Errorf("encode a line: %w", err)
	}
	return append(raw, '\n'), nil
}

// cut returns a text of bounded length, and marks where it was cut.
func cut(text string) string {
	if len(text) <= maxField {
		return text
	}
	return strings.ToValidUTF8(text[:maxField], "") + "…"
}

// product is a name with a version, such as containerd/v2.1.0 (RFC 9110, 10.1.5). The bounds on
// its length leave out tokens.
var product = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,31}/[A-Za-z0-9.+~_-]{1,24}$`)

// products returns the products of a user agent. Whatever else clients put there, such as a token,
// is left out.
func products(agent string) string {
	if len(agent) > 4*maxField {
		agent = agent[:4*maxField]
	}
	var found []string
	for word := range strings.FieldsSeq(agent) {
		if product.MatchString(word) && len(found) < maxProducts {
			found = append(found, word)
		}
	}
	return cut(strings.Join(found, " "))
}
