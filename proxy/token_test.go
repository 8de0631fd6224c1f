package proxy_test

import (
	"net/http"
	"testing"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestExpiredTokenIsRenewedOnce(t *testing.T) {
	r := newRig(t, settings{})
	first := r.addImage("v1", ecrtest.Random(1, 1000))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	for name, ask := range map[string]func() answer{
		"a manifest":      func() answer { return r.get(manifestPath(app, "v2")) },
		"a HEAD of a tag": func() answer { return r.head(manifestPath(app, "v1")) },
		"a blob":          func() answer { return r.get(blobPath(app, first.Blobs[0].Digest)) },
		"a list":          func() answer { return r.get("/v2/" + app + "/tags/list") },
	} {
		r.addImage("v2", ecrtest.Random(2, 1000))
		r.ecr.ExpireTokens()
		r.ecr.ResetStats()
		a := ask()
		wantStatus(t, a, http.StatusOK)
		if a.Header.Get("X-Cache") == "STALE" {
			t.Errorf("%s is stale", name)
		}
		if got := r.ecr.Stats().Tokens; got != 1 {
			t.Errorf("%s: %d tokens were asked for, want 1", name, got)
		}
	}
}

// Sixteen fills are under way when the token and all signed URLs expire.
func TestTokenExpiresWhileFillsRun(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{cache: cache.Options{Segment: 128 << 10}})
	hold := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, StallAfter: new(int64(64 << 10))})
	var contents [][]byte
	var bodies []*http.Response
	for i := range swarm {
		content := bytesOf(t, ecrtest.Random(uint64(i), 1<<20))
		contents = append(contents, content)
		bodies = append(bodies, r.open(http.MethodGet, blobPath(app, r.addBlob(app, ecrtest.Bytes(content)).Digest)))
	}
	r.ecr.ExpireTokens()
	r.ecr.ExpireURLs()
	r.ecr.ResetStats()
	hold()
	for i, resp := range bodies {
		wantBody(t, read(resp), contents[i])
	}
	if got := r.ecr.Stats().Tokens; got != 1 {
		t.Errorf("%d tokens were asked for, want 1", got)
	}
}
