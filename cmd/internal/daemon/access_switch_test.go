package daemon

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/privatetest"
)

// The cache is full of images that everybody could pull while the node's rights decided. One of them has a layer that its
// repository names and does not have: with access: node it comes from another repository.
func TestSwitchToTheClientsRightsHoldsForWhatIsCached(t *testing.T) {
	for name, lost := range map[string][]string{
		"the index as it was":          nil,
		"an index from its snapshot":   {"index"},
		"an index from names of files": {"index", "index.snapshot"},
	} {
		t.Run(name, func(t *testing.T) { switchToTheClientsRights(t, lost) })
	}
}

// switchToTheClientsRights removes something of the cache folder before the clients' rights decide.
func switchToTheClientsRights(t *testing.T, lost []string) {
	registry := privatetest.Start(t, false)
	registry.AddUser(privatetest.Anonymous, "", "team/a", "team/b")
	image := registry.Push(t, "team/a", "v1", 100_000)
	registry.PushImage(t, "team/b", "v1", image)
	dir := t.TempDir()
	g := serveBy(t, config.AccessNode, registry, dir, "")
	a, b := g.paths(t, "team/a", image), g.paths(t, "team/b", image)
	registry.RemoveBlob(strings.TrimSuffix(b["layer"], "?ns="+registry.Host))
	wants := func(user string, paths map[string]string, want map[string]int) {
		t.Helper()
		for _, kind := range []string{"tag", "digest", "layer"} {
			if status, body := privatetest.Get(t, http.MethodGet, g.url, paths[kind], user, user+"'s password"); status != want[kind] {
				t.Errorf("%s by %q: %d %s, want %d", paths[kind], user, status, body, want[kind])
			}
		}
	}
	all := map[string]int{"tag": http.StatusOK, "digest": http.StatusOK, "layer": http.StatusOK}
	wants(privatetest.Anonymous, a, all)
	wants(privatetest.Anonymous, b, all)
	g.stop()
	for _, name := range lost {
		if err := os.RemoveAll(filepath.Join(dir, "cache", name)); err != nil {
			t.Fatal(err)
		}
	}

	registry.AddUser(privatetest.Anonymous, "")
	registry.AddUser("alice", "alice's password", "team/a", "team/b")
	g = serveGuarded(t, registry, dir, "")
	wants("alice", a, all)
	wants("alice", b, map[string]int{"tag": http.StatusOK, "digest": http.StatusOK, "layer": http.StatusNotFound})
	none := map[string]int{"tag": http.StatusUnauthorized, "digest": http.StatusUnauthorized, "layer": http.StatusUnauthorized}
	wants("mallory", a, none)
	wants("mallory", b, none)
	if slices.Contains(lost, "index.snapshot") {
		return // then the registry is asked for bytes that prove the layer, by the client and perhaps in the background
	}
	if n := registry.Sent(strings.TrimSuffix(a["layer"], "?ns="+registry.Host)); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}
