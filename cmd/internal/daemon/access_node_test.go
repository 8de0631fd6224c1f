package daemon

import (
	"net/http"
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/privatetest"
)

// Beside an upstream whose clients' rights decide, /v2/ is challenged, and no path of an upstream with access: node.
func TestPathsOfANodeUpstreamAreNeverChallenged(t *testing.T) {
	registry := privatetest.Start(t, false)
	registry.AddUser(privatetest.Anonymous, "", "team/a")
	image := registry.Push(t, "team/a", "v1", 1000)
	g := serveBy(t, config.AccessNode, registry, t.TempDir(), "", "  - {host: client.example.com, access: client}\n")
	ask := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	for kind, path := range g.paths(t, "team/a", image) {
		if resp := ask(path); resp.StatusCode != http.StatusOK || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %s, challenge %q", kind, resp.Status, resp.Header.Get("WWW-Authenticate"))
		}
	}
	if resp := ask("/v2/"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("/v2/: %s", resp.Status)
	}
}
