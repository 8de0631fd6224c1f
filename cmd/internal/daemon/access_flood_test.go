package daemon

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/privatetest"
)

// A client guesses alice's password, at a registry that says at /v2/ whether a login is right, and at one that says so for
// a repository alone.
func TestFloodOfWrongPasswordsAsksTheRegistryLittle(t *testing.T) {
	for name, open := range map[string]bool{"at the login": false, "at the repository": true} {
		t.Run(name, func(t *testing.T) {
			registry := privatetest.Start(t, true)
			registry.AddUser("alice", "alice's password", "team/a")
			registry.AddUser("bob", "bob's password", "team/a")
			g := serveGuarded(t, registry, t.TempDir(), ", recheck: 1ns")
			tag := g.paths(t, "team/a", registry.Push(t, "team/a", "v1", 1000))["tag"]
			if open {
				registry.Open()
			}
			get := func(user, password string) int {
				status, _ := privatetest.Get(t, http.MethodGet, g.url, tag, user, password)
				return status
			}
			if status := get("bob", "bob's password"); status != http.StatusOK {
				t.Fatalf("bob: %d", status)
			}
			const guesses, at = 500, 10
			began := time.Now()
			var clients sync.WaitGroup
			for n := range at {
				clients.Go(func() {
					for i := range guesses / at {
						if status := get("alice", fmt.Sprint("guess ", n, i)); status < http.StatusBadRequest {
							t.Errorf("a guess: %d", status)
						}
						if i%20 != 0 {
							continue
						}
						if status := get("bob", "bob's password"); status != http.StatusOK { // which is asked anew
							t.Errorf("bob: %d", status)
						}
					}
				})
			}
			clients.Wait()
			most := 64 + int(time.Since(began)/time.Second) + 1
			asked := 0
			for q, n := range registry.Asked() {
				if q.User == "alice" {
					asked += n
				}
			}
			if asked == 0 || asked > 2*most { // twice for a HEAD that is refused
				t.Errorf("the registry was asked %d times about %d guesses, of which it takes %d", asked, guesses, most)
			}
		})
	}
}
