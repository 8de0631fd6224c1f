package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

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
			t.Errorf("%s: %d tokens were fetched, want 1", name, got)
		}
	}
}

// Sixteen fills are running when the token and all signed URLs expire.
func TestTokenExpiresWhileFillsRun(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{cache: cache.Options{Segment: 128 << 10}})
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, StallAfter: new(int64(64 << 10))})
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
	release()
	for i, resp := range bodies {
		wantBody(t, read(resp), contents[i])
	}
	if got := r.ecr.Stats().Tokens; got != 1 {
		t.Errorf("%d tokens were fetched, want 1", got)
	}
}

// The token API fails from some time after the last renewal until long after the token has
// expired. Cached content does not need it.
func TestCacheServesWithoutATokenAndErrorsAreThoseOfAWS(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRig(t, settings{now: clock.Now, cache: cache.Options{
		Retry: hasty.Retry,
		Tags:  cache.Freshness{TTL: time.Minute, StaleIfError: 1000 * time.Hour},
	}})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	r.addImage("v2", ecrtest.Random(2, 1000))
	layer := blobPath(app, image.Blobs[0].Digest)
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	content := r.cache(layer)
	restore := r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Code: "ServerException", Message: "the lights are out"})

	clock.Advance(11 * time.Hour)
	a := r.head(manifestPath(app, "v1"))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "X-Cache", "HIT") // the old token confirms it

	clock.Advance(2 * time.Hour)
	for range 60 {
		clock.Advance(time.Minute)
		a := r.get(manifestPath(app, "v1"))
		wantStatus(t, a, http.StatusOK)
		wantHeader(t, a, "X-Cache", "STALE")
		wantBody(t, r.get(layer), content)
		a = r.get(manifestPath(app, "v2"))
		wantError(t, a, http.StatusServiceUnavailable, "UNAVAILABLE")
		if !strings.Contains(string(a.body), "ServerException: the lights are out") {
			t.Fatalf("the answer is %s, without the message of AWS", a.body)
		}
	}
	if n := r.ecr.Stats().Requests[ecrtest.API]; n > 3*(60+10) { // the SDK tries three times
		t.Errorf("the API was asked %d times in an hour, want one attempt a minute in the end", n)
	}

	restore()
	clock.Advance(time.Minute)
	wantStatus(t, r.get(manifestPath(app, "v2")), http.StatusOK)
	a = r.get(manifestPath(app, "v1"))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "X-Cache", "HIT")
}
