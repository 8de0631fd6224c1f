package upstream // its registry answers in a bubble, as in the other tests of the package

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// Some registries ignore n and send all tags of a repository: 5.5 MB were seen.
func TestTagsMayBeLongerThanAManifest(t *testing.T) {
	for name, c := range map[string]struct {
		size int
		ok   bool
	}{"larger than a manifest": {6 << 20, true}, "at the bound": {maxList, true}, "above the bound": {maxList + 1, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := append([]byte(`{"tags":["v1"]}`), bytes.Repeat([]byte(" "), c.size-15)...)
				r := startInBubble(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(want) })
				_, body, err := r.List(t.Context(), repo, "tags/list", nil)
				switch {
				case c.ok && (err != nil || !bytes.Equal(body, want)):
					t.Errorf("%d of %d bytes, %v", len(body), len(want), err)
				case !c.ok && (err == nil || !strings.Contains(err.Error(), "more than")):
					t.Errorf("the error is %v, want one that names the bound", err)
				}
			})
		})
	}
}
