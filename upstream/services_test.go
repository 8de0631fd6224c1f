package upstream_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/larder-registry/larder/upstream"
)

// Whoever signs an image chooses what its certificates name.
func TestServicesOfCertificatesAreNotOnThisMachine(t *testing.T) {
	var asked atomic.Int64
	local := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(local.Close)
	client := upstream.NewClient(upstream.Options{Lookup: func(string) (upstream.Config, bool) { return upstream.Config{}, false }})
	t.Cleanup(func() { _ = client.Close() })
	services := client.Services()
	for _, address := range []string{local.URL, strings.Replace(local.URL, "127.0.0.1", "localhost", 1), "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"} {
		resp, err := services.Get(address)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s is asked: %s", address, resp.Status)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a server on this machine was asked %d times", n)
	}
}
