package daemon

import (
	"net/http"
	"testing"

	"github.com/larder-registry/larder/upstream/privatetest"
)

// revocable is a daemon in front of an image of which alice and carol have pulled the manifest. The registry
// takes alice's rights away afterwards.
type revocable struct {
	*guarded
	paths map[string]string
}

func serveRevocable(t *testing.T) *revocable {
	t.Helper()
	registry := privatetest.Start(t, false)
	registry.AddUser("alice", "alice's password", "team/a")
	registry.AddUser("carol", "carol's password", "team/a")
	image := registry.Push(t, "team/a", "v1", 100_000)
	g := serveGuarded(t, registry, t.TempDir(), "")
	r := &revocable{g, g.paths(t, "team/a", image)}
	for _, user := range []string{"carol", "alice"} {
		r.wants(t, user, "tag", http.StatusOK)
	}
	return r
}

func (r *revocable) wants(t *testing.T, user, kind string, want int) {
	t.Helper()
	if status, body := privatetest.Get(t, http.MethodGet, r.url, r.paths[kind], user, user+"'s password"); status != want {
		t.Errorf("%s of %s: %d %s, want %d", kind, user, status, body, want)
	}
}

func TestRefusalDuringAFetchEndsTheRight(t *testing.T) {
	r := serveRevocable(t)
	r.registry.AddUser("alice", "alice's password")
	r.wants(t, "alice", "layer", http.StatusOK) // by her remembered right, with carol's credential
	r.wants(t, "alice", "layer", http.StatusNotFound)
	r.wants(t, "alice", "tag", http.StatusForbidden)
	r.wants(t, "carol", "layer", http.StatusOK)
	r.wants(t, "carol", "tag", http.StatusOK)
}

func TestTagsAreListedWithTheClientsOwnCredentialAlone(t *testing.T) {
	r := serveRevocable(t)
	r.wants(t, "alice", "tags", http.StatusOK)
	r.registry.AddUser("alice", "alice's password")
	r.wants(t, "alice", "tags", http.StatusForbidden)
	if n := r.registry.Asked()[privatetest.Question{User: "carol", Repository: "team/a", Kind: "tags"}]; n > 0 {
		t.Errorf("the registry was asked %d times with another client's credential", n)
	}
}
