package policy

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/name"
)

const (
	host  = "registry.example.com"
	oci   = "application/vnd.oci.image.manifest.v1+json"
	index = "application/vnd.oci.image.index.v1+json"
)

// shelf is a Content with some images.
type shelf struct {
	documents map[digest.Digest]string
	naming    map[digest.Digest][]Image
	text      map[digest.Digest]bool
}

func (s shelf) Naming(image Image) []Image { return s.naming[image.Digest] }

func (s shelf) Manifest(_ context.Context, image Image) ([]byte, error) {
	if doc, ok := s.documents[image.Digest]; ok {
		return []byte(doc), nil
	}
	return []byte(`{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"}]}`), nil
}

func (s shelf) IsText(_ context.Context, _ Image, blob digest.Digest) (bool, error) {
	return s.text[blob], nil
}

// condition is a Condition whose answers a test sets.
type condition struct {
	mu     sync.Mutex
	answer map[digest.Digest]Answer
	err    error
	asked  atomic.Int64
}

func (c *condition) Evaluate(_ context.Context, image Image) (Answer, error) {
	c.asked.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer[image.Digest], c.err
}

func (c *condition) set(image Image, a Answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == nil {
		c.answer = make(map[digest.Digest]Answer)
	}
	c.answer[image.Digest], c.err = a, err
}

func image(content, mediaType string) Image {
	return Image{Host: host, Repository: "prod/app", Digest: digest.FromString(content), MediaType: mediaType}
}

func newPolicy(t testing.TB, opts Options, all ...*Rule) *Policy {
	t.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	p, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	p.Use(all)
	return p
}

func rule(match string) *Rule {
	p, ok := name.ParsePattern(match)
	if !ok {
		panic(match)
	}
	return &Rule{Match: p, Mode: Enforce, Offline: time.Hour, Basis: "1"}
}

func decide(t *testing.T, p *Policy, im Image, content Content) *Decision {
	t.Helper()
	r := p.Rule(im.Host, im.Repository)
	if r == nil {
		t.Fatal("no rule covers it")
	}
	d, err := p.Decide(t.Context(), r, im, content)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A condition that refuses decides, whatever another one cannot say.
// Where a registry has no lists of referrers, an index stands for one. It is judged by what it lists, not by what it says
// of that.

// pass lets time pass on synctest's clock.
func pass(d time.Duration) { <-time.After(d) }
