package daemon

import (
	"net/http"
	"strings"
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

// The registry takes alice's right away while a layer is fetched with her credential, and breaks the connection.
func TestFillGoesOnWithTheCredentialOfAnotherWhenOneIsRevoked(t *testing.T) {
	for name, c := range map[string]struct {
		others bool // whether carol waits for it too
	}{"another client waits": {true}, "no other client waits": {false}} {
		t.Run(name, func(t *testing.T) {
			r := serveRevocable(t)
			path := r.paths["layer"]
			held := r.registry.Hold(strings.TrimSuffix(path, "?ns="+r.registry.Host))
			get := func(user string) chan privatetest.Reply {
				got := make(chan privatetest.Reply, 1)
				go func() {
					got <- privatetest.Ask(t, privatetest.Request{Method: http.MethodGet, URL: r.url + path, User: user, Password: user + "'s password"})
				}()
				return got
			}
			if !c.others {
				r.registry.AddUser("carol", "carol's password")
			}
			alice := get("alice")
			<-held.Begun
			var carol chan privatetest.Reply
			if c.others {
				carol = get("carol")
			}
			r.registry.AddUser("alice", "alice's password")
			held.Cut()
			if c.others {
				if got := <-carol; got.Status != http.StatusOK || got.Err != nil {
					t.Errorf("carol: %+v", got)
				}
				<-alice
			} else if got := <-alice; got.Status == http.StatusOK && got.Err == nil {
				t.Errorf("alice has the whole layer, though the registry refuses it: %+v", got)
			}
			r.wants(t, "alice", "layer", http.StatusNotFound)
			r.wants(t, "alice", "tag", http.StatusForbidden)
			r.registry.AddUser("dave", "dave's password", "team/a")
			r.wants(t, "dave", "layer", http.StatusOK)
		})
	}
}
