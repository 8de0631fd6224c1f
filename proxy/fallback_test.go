package proxy_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// hasty gives up quickly, so that tests of lasting failures are short.
var hasty = cache.Options{Retry: cache.Retry{First: 2, Later: 2, Pause: time.Millisecond, MaxPause: time.Second}}

// No response may be a 401 or a 429: see the table in PROTOCOL.md.
func TestUpstreamFailuresMakeClientsFallBack(t *testing.T) {
	t.Parallel()
	const denial = `{"errors":[{"code":"DENIED","message":"User is not authorized to perform: ecr:BatchGetImage"}]}`
	tests := []struct {
		name  string
		fault ecrtest.Fault
		// The status and code for a manifest, a list of tags and referrers. A blob
		// is 404 BLOB_UNKNOWN unless the upstream throttles.
		status int
		code   string
		retry  string
	}{
		{"denied", ecrtest.Fault{Status: 403, Body: denial}, 403, "DENIED", ""},
		{"unauthorized for good", ecrtest.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}, 403, "DENIED", ""},
		{"throttled", ecrtest.Fault{Status: 429}, 503, "UNAVAILABLE", "5"},
		{"throttled for a time", ecrtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"37"}}}, 503, "UNAVAILABLE", "37"},
		{"broken", ecrtest.Fault{Status: 500}, 503, "UNAVAILABLE", "5"},
		{"unavailable", ecrtest.Fault{Status: 503}, 503, "UNAVAILABLE", "5"},
		{"a teapot", ecrtest.Fault{Status: 418}, 503, "UNAVAILABLE", "5"},
		{"cutting connections", ecrtest.Fault{Refuse: true}, 503, "UNAVAILABLE", "5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			set := settings{cache: hasty}
			if test.fault.Status == 429 {
				set.timeout = 2 * time.Second // a client waits for half of it
			}
			r := newRig(t, set)
			image := r.addImage("v1", ecrtest.Random(1, 1000))
			test.fault.On = ecrtest.Manifest | ecrtest.Blob | ecrtest.Tags | ecrtest.Referrers
			r.ecr.Inject(test.fault)
			ns := "?ns=" + r.ecr.Host()
			paths := []string{
				manifestPath(app, "v1"),
				manifestPath(app, image.Root.Digest.String()),
				"/v2/" + app + "/tags/list",
			}
			if test.fault.Status != 418 { // that of referrers is a 404: TestReferrersWithoutTheAPIAreNotFound
				paths = append(paths, "/v2/"+app+"/referrers/"+image.Root.Digest.String())
			}
			for _, path := range paths {
				for _, a := range []answer{r.get(path + ns), r.head(path + ns)} {
					wantError(t, a, test.status, test.code)
					wantHeader(t, a, "Retry-After", test.retry)
				}
			}
			status, code := 404, "BLOB_UNKNOWN"
			if test.fault.Status == 429 {
				status, code = test.status, test.code
			}
			path := blobPath(app, image.Blobs[0].Digest)
			for _, a := range []answer{r.get(path), r.head(path), r.get(path, "Range", "bytes=10-19")} {
				wantError(t, a, status, code)
			}
		})
	}
}

func TestMissingContentIsNotFound(t *testing.T) {
	r := newRig(t, settings{})
	r.addImage("v1", ecrtest.Random(1, 1000))
	for _, test := range []struct{ path, code string }{
		{manifestPath(app, "other"), "MANIFEST_UNKNOWN"},
		{manifestPath(app, digestOfNothing), "MANIFEST_UNKNOWN"},
		{blobPath(app, digestOfNothing), "BLOB_UNKNOWN"},
		{manifestPath("no/such", "v1"), "NAME_UNKNOWN"},
		{manifestPath("no/such", digestOfNothing), "NAME_UNKNOWN"},
		{blobPath("no/such", digestOfNothing), "BLOB_UNKNOWN"},
		{"/v2/no/such/tags/list", "NAME_UNKNOWN"},
		{"/v2/no/such/referrers/" + digestOfNothing, "NAME_UNKNOWN"},
	} {
		for _, a := range []answer{r.get(test.path), r.head(test.path)} {
			wantError(t, a, http.StatusNotFound, test.code)
			wantHeader(t, a, "Retry-After", "")
		}
	}
}

// Only classic Docker names no registry, and it does not fall back on DENIED.
func TestDenialIsNotFoundIfNoRegistryIsNamed(t *testing.T) {
	r := newRig(t, settings{})
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusForbidden})
	wantError(t, r.get(manifestPath(app, "v1")), http.StatusNotFound, "NAME_UNKNOWN")
	wantError(t, r.get(manifestPath(app, "v2")+"?ns="+r.ecr.Host()), http.StatusForbidden, "DENIED")
	wantError(t, r.get(manifestPath(r.ecr.Host()+"/"+app, "v3")), http.StatusForbidden, "DENIED")
}

func TestDeadUpstreamIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{cache: hasty})
	r.ecr.Stop()
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		manifestPath(app, "v1"):            {http.StatusServiceUnavailable, "UNAVAILABLE"},
		manifestPath(app, digestOfNothing): {http.StatusServiceUnavailable, "UNAVAILABLE"},
		blobPath(app, digestOfNothing):     {http.StatusNotFound, "BLOB_UNKNOWN"},
		"/v2/" + app + "/tags/list":        {http.StatusServiceUnavailable, "UNAVAILABLE"},
	} {
		wantError(t, r.get(path), want.status, want.code)
	}
}

func TestSilentUpstreamIsReportedAfterItsTimeout(t *testing.T) {
	r := newRig(t, settings{timeout: 50 * time.Millisecond})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	remove := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob | ecrtest.Tags, Hang: true})
	defer remove()
	wantError(t, r.get(manifestPath(app, "v1")), http.StatusServiceUnavailable, "UNAVAILABLE")
	wantError(t, r.get("/v2/"+app+"/tags/list"), http.StatusServiceUnavailable, "UNAVAILABLE")
	wantError(t, r.get(blobPath(app, image.Blobs[0].Digest)), http.StatusNotFound, "BLOB_UNKNOWN")
}

// Each answer would take the timeout, or two seconds if there is a stale one.
func TestKnownSilenceCostsClientsNothing(t *testing.T) {
	r := newRig(t, settings{timeout: 500 * time.Millisecond, cache: cache.Options{Tags: cache.Freshness{TTL: time.Nanosecond, StaleIfError: time.Hour, Negative: time.Nanosecond}}})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	defer r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob | ecrtest.Tags, Hang: true})()
	r.get(manifestPath(app, "v1")) // finds the silence out
	began := time.Now()
	for range 5 {
		wantHeader(t, r.get(manifestPath(app, "v1")), "X-Cache", "STALE")
		wantHeader(t, r.get("/v2/"+app+"/tags/list"), "X-Cache", "STALE")
		wantError(t, r.get(manifestPath(app, "v2")), http.StatusServiceUnavailable, "UNAVAILABLE")
		wantError(t, r.get("/v2/"+app+"/referrers/"+image.Blobs[0].Digest.String()), http.StatusServiceUnavailable, "UNAVAILABLE")
		wantError(t, r.get(blobPath(app, digestOfNothing)), http.StatusNotFound, "BLOB_UNKNOWN")
	}
	if took := time.Since(began); took > 4*time.Second { // 25 requests of half a second each
		t.Errorf("25 requests took %v", took)
	}
}

func TestInvalidRequestsAreRefused(t *testing.T) {
	r := newRig(t, settings{})
	for _, test := range []struct {
		path   string
		status int
		code   string
	}{
		{blobPath(app, "sha256:1234"), 400, "DIGEST_INVALID"},
		{"/v2/" + app + "/referrers/latest", 400, "DIGEST_INVALID"},
		{manifestPath(app, "-x"), 400, "TAG_INVALID"},
		{"/v2/Team/manifests/v1", 400, "NAME_INVALID"},
		{"/v2/" + app + "/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"},
		{"/v2/" + app + "/tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"},
		{"/v2/_catalog", 404, "NAME_UNKNOWN"},
	} {
		wantError(t, r.get(test.path), test.status, test.code)
		wantError(t, r.head(test.path), test.status, test.code)
	}
	if got := r.ecr.Stats().Requests; len(got) != 0 {
		t.Errorf("the upstream was asked: %v", got)
	}
}

func TestErrorsHaveAContentLength(t *testing.T) {
	r := newRig(t, settings{})
	get, head := r.get("/v2/_catalog"), r.head("/v2/_catalog")
	wantHeader(t, get, "Content-Length", strconv.Itoa(len(get.body)))
	wantHeader(t, head, "Content-Length", strconv.Itoa(len(get.body)))
}
