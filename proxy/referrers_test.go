package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// addSigned puts an image into the fake's repository app that an artifact refers to.
func (r *rig) addSigned(tag string) *ecrtest.Added {
	r.t.Helper()
	added, err := r.ecr.AddImage(app, tag, ecrtest.Image{
		Layers:   []ecrtest.Layer{{Content: ecrtest.Random(1, 10)}},
		Artifact: true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return added
}

func referrersPath(repo string, d digest.Digest) string {
	return "/v2/" + repo + "/referrers/" + d.String()
}

// referrersOf reads a list of referrers.
func referrersOf(t *testing.T, header http.Header, body []byte) []ocispec.Descriptor {
	t.Helper()
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		t.Fatalf("%.300s: %v", body, err)
	}
	if got := header.Get("Content-Type"); got != ocispec.MediaTypeImageIndex || index.MediaType != got || index.SchemaVersion != 2 || index.Manifests == nil {
		t.Errorf("Content-Type %q of %.300s", got, body)
	}
	return index.Manifests
}

func TestReferrersAreListedAndFilteredByType(t *testing.T) {
	r, clock := newTagRig(t)
	image := r.addSigned("v1")
	path := referrersPath(app, image.Root.Digest)
	artifact := image.Artifact
	artifact.ArtifactType = ecrtest.ArtifactType
	for _, test := range []struct {
		query, filters string
		want           []ocispec.Descriptor
		state          string
	}{
		{"", "", []ocispec.Descriptor{artifact}, "MISS"},
		{"?artifactType=" + url.QueryEscape(ecrtest.ArtifactType), "artifactType", []ocispec.Descriptor{artifact}, "HIT"},
		{"?artifactType=other", "artifactType", []ocispec.Descriptor{}, "HIT"},
	} {
		a := r.get(path + test.query)
		wantStatus(t, a, http.StatusOK)
		wantHeader(t, a, "Oci-Filters-Applied", test.filters)
		wantHeader(t, a, "X-Cache", test.state)
		if diff := cmp.Diff(test.want, referrersOf(t, a.Header, a.body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.query, diff)
		}
		wantSameHeaders(t, a, r.head(path+test.query))
	}
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	clock.advance(time.Minute)
	wantHeader(t, r.get(path), "X-Cache", "MISS")
	r.ecr.Stop()
	r.restart()
	clock.advance(time.Minute)
	a := r.get(path + "?artifactType=" + url.QueryEscape(ecrtest.ArtifactType))
	wantHeader(t, a, "X-Cache", "STALE")
	if diff := cmp.Diff([]ocispec.Descriptor{artifact}, referrersOf(t, a.Header, a.body)); diff != "" {
		t.Errorf("without the upstream (-want +got):\n%s", diff)
	}
}

// Clients that get a 404 ask by tag. From Larder they would not do so for a 503, though the
// upstream's own answer makes them.
func TestReferrersWithoutTheAPIAreNotFound(t *testing.T) {
	const index = ocispec.MediaTypeImageIndex
	for name, fault := range map[string]ecrtest.Fault{
		"404":                       {Status: http.StatusNotFound, Body: "404 page not found"},
		"400":                       {Status: http.StatusBadRequest},
		"405":                       {Status: http.StatusMethodNotAllowed},
		"406":                       {Status: http.StatusNotAcceptable},
		"418":                       {Status: http.StatusTeapot},
		"501":                       {Status: http.StatusNotImplemented},
		"a login page":              {Status: http.StatusOK, Body: "<html>Welcome</html>"},
		"no document":               {Status: http.StatusOK, Body: "{}"},
		"null as an index":          {Status: http.StatusOK, Body: "null", Header: http.Header{"Content-Type": {index}}},
		"an image":                  {Status: http.StatusOK, Body: `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`},
		"something that says it is": {Status: http.StatusOK, Body: "<html>", Header: http.Header{"Content-Type": {index}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, settings{})
			fault.On = ecrtest.Referrers
			r.ecr.Inject(fault)
			wantError(t, r.get("/v2/"+app+"/referrers/"+digestOfNothing), http.StatusNotFound, "MANIFEST_UNKNOWN")
		})
	}
}

func TestReferrersAreUnavailableOnlyWhileTheUpstreamFails(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		r := newRig(t, settings{timeout: 2 * time.Second})
		r.ecr.Inject(ecrtest.Fault{On: ecrtest.Referrers, Status: status})
		wantError(t, r.get("/v2/"+app+"/referrers/"+digestOfNothing), http.StatusServiceUnavailable, "UNAVAILABLE")
	}
}

func TestIndexOfReferrersNeedsNoMediaType(t *testing.T) {
	r := newRig(t, settings{})
	r.ecr.Inject(ecrtest.Fault{
		On: ecrtest.Referrers, Status: http.StatusOK, Body: `{"schemaVersion":2,"manifests":[]}`,
		Header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex + "; charset=utf-8"}},
	})
	a := r.get("/v2/" + app + "/referrers/" + digestOfNothing)
	wantStatus(t, a, http.StatusOK)
	if got := referrersOf(t, a.Header, a.body); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// pages is an upstream's list of referrers, n to a page. It ignores artifactType.
type pages struct {
	all  []ocispec.Descriptor
	n    int
	last func(page int) (http.Header, []byte, error) // replaces an answer, unless it is nil or returns nothing

	asked, admitted int
}

func (p *pages) list(ctx context.Context, _ string, query url.Values) (http.Header, []byte, error) {
	p.asked++
	start := 0
	if _, err := fmt.Sscan(query.Get("next"), &start); err != nil && query.Has("next") {
		return nil, nil, err
	}
	if p.last != nil {
		if header, body, err := p.last(start / p.n); header != nil || err != nil {
			return header, body, err
		}
	}
	end := min(start+p.n, len(p.all))
	body, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: p.all[start:end]})
	if err != nil {
		return nil, nil, err
	}
	header := http.Header{}
	if end < len(p.all) {
		header.Set("Link", fmt.Sprintf(`<https://elsewhere.example/v2/x?next=%d>; rel="next"`, end))
	}
	if len(body) > 64<<10 {
		if err := admit(ctx, len(body)); err != nil {
			return nil, nil, err
		}
		p.admitted++
	}
	return header, body, nil
}

// someReferrers are n referrers of some bytes each, of the types a/0 to a/9.
func someReferrers(n, bytes int) []ocispec.Descriptor {
	all := make([]ocispec.Descriptor, n)
	for i := range all {
		all[i] = ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i),
			ArtifactType: fmt.Sprint("a/", i%10), Annotations: map[string]string{"padding": strings.Repeat("a", bytes)},
		}
	}
	return all
}

func TestPagesOfReferrersBecomeOneList(t *testing.T) {
	upstream := &pages{all: someReferrers(1000, 0), n: 50}
	larder := serveScripted(t, cache.Options{Tags: fresh}, &scripted{host: "one.test", list: upstream.list})
	path := "/v2/one.test/app/referrers/" + digestOfNothing
	got := ask(t, larder, path)
	if diff := cmp.Diff(upstream.all, referrersOf(t, got.Header(), got.Body.Bytes())); diff != "" || got.Header().Get("Link") != "" {
		t.Errorf("Link %q (-want +got):\n%s", got.Header().Get("Link"), diff)
	}
	some := ask(t, larder, path+"?artifactType=a/7")
	if n := len(referrersOf(t, some.Header(), some.Body.Bytes())); n != 100 || some.Header().Get("X-Cache") != "HIT" {
		t.Errorf("%d of a type, %s", n, some.Header().Get("X-Cache"))
	}
	if upstream.asked != 20 {
		t.Errorf("the upstream was asked %d times for 20 pages", upstream.asked)
	}
}

func TestOverlappingPagesOfReferrersListEachOnce(t *testing.T) {
	all := someReferrers(3, 0)
	upstream := &pages{all: []ocispec.Descriptor{all[0], all[1], all[1], all[2]}, n: 2}
	larder := serveScripted(t, cache.Options{}, &scripted{host: "one.test", list: upstream.list})
	got := ask(t, larder, "/v2/one.test/app/referrers/"+digestOfNothing)
	if diff := cmp.Diff(all, referrersOf(t, got.Header(), got.Body.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLongListOfReferrersIsServedInPages(t *testing.T) {
	upstream := &pages{all: someReferrers(3500, 900), n: 500} // some 4 MB
	larder := serveScripted(t, cache.Options{}, &scripted{host: "one.test", list: upstream.list})
	for path, want := range map[string]int{"/v2/app/referrers/" + digestOfNothing + "?ns=one.test": 3500, "/v2/one.test/app/referrers/" + digestOfNothing + "?artifactType=a/3": 350} {
		var got []ocispec.Descriptor
		pages := 0
		for query := "first"; query != ""; pages++ {
			a := ask(t, larder, path)
			if a.Code != http.StatusOK || a.Body.Len() > 3<<20 {
				t.Fatalf("%s: %d, %d bytes", path, a.Code, a.Body.Len())
			}
			got = append(got, referrersOf(t, a.Header(), a.Body.Bytes())...)
			path = next(t, answer{Response: &http.Response{Header: a.Header(), Request: httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)}})
			query = path
		}
		seen := make(map[digest.Digest]bool)
		for _, d := range got {
			seen[d.Digest] = true
		}
		if len(got) != want || len(seen) != want || (want == 3500) != (pages == 2) {
			t.Errorf("%d referrers, %d different ones, on %d pages; want %d", len(got), len(seen), pages, want)
		}
	}
}

// A client that is told of fewer referrers than there are may take an image for one without a
// signature.
func TestListOfReferrersThatCannotBeReadIsAFailure(t *testing.T) {
	small := someReferrers(10, 0)
	onPage := func(page int, header http.Header, body string, err error) func(int) (http.Header, []byte, error) {
		return func(at int) (http.Header, []byte, error) {
			if at < page {
				return nil, nil, nil
			}
			return header, []byte(body), err
		}
	}
	index := func(entries string) string {
		return `{"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + entries + `]}`
	}
	for name, upstream := range map[string]*pages{
		"too many bytes on one page": {all: someReferrers(5000, 900), n: 5000},
		"too many bytes":             {all: someReferrers(5000, 900), n: 100},
		"too many pages":             {all: someReferrers(201, 0), n: 1},
		"a Link to itself":           {all: small, n: 1, last: onPage(0, http.Header{"Link": {`</?next=0>; rel="next"`}}, index(""), nil)},
		"a Link that is none":        {all: small, n: 1, last: onPage(0, http.Header{"Link": {"next"}}, index(""), nil)},
		"a second page that is gone": {all: small, n: 5, last: onPage(1, nil, "", fmt.Errorf("404: %w", fs.ErrNotExist))},
		"a second page without API":  {all: small, n: 5, last: onPage(1, nil, "", unsupported{fs.ErrNotExist})},
		"a second page of HTML":      {all: small, n: 5, last: onPage(1, http.Header{}, "<html>", nil)},
		"throttling":                 {all: small, n: 5, last: onPage(0, nil, "", throttled{})},
		"throttling later":           {all: small, n: 5, last: onPage(1, nil, "", throttled{})},
		"an entry that is none":      {all: small, n: 5, last: onPage(0, http.Header{}, index(`"sha256"`), nil)},
		"an entry without a digest":  {all: small, n: 5, last: onPage(0, http.Header{}, index(`{"size":1}`), nil)},
	} {
		t.Run(name, func(t *testing.T) {
			larder := serveScripted(t, cache.Options{Tags: fresh}, &scripted{host: "one.test", list: upstream.list})
			got := ask(t, larder, "/v2/one.test/app/referrers/"+digestOfNothing)
			if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" {
				t.Errorf("%d, %.300s", got.Code, got.Body)
			}
		})
	}
}

func TestListOfReferrersIsNotReadBeyondItsBounds(t *testing.T) {
	large := &pages{all: someReferrers(5000, 900), n: 5000}
	circle := &pages{n: 1, last: func(int) (http.Header, []byte, error) {
		return http.Header{"Link": {`</?next=0>; rel="next"`}}, []byte(`{"mediaType":"` + ocispec.MediaTypeImageIndex + `"}`), nil
	}}
	for name, test := range map[string]struct {
		*pages
		admitted, asked int
	}{
		"a page that is too large": {large, 0, 1},
		"a Link to itself":         {circle, 0, 2},
	} {
		larder := serveScripted(t, cache.Options{}, &scripted{host: "one.test", list: test.list})
		ask(t, larder, "/v2/one.test/app/referrers/"+digestOfNothing)
		if test.pages.admitted != test.admitted || test.pages.asked != test.asked {
			t.Errorf("%s: %d pages, %d of them admitted; want %d, %d", name, test.pages.asked, test.pages.admitted, test.asked, test.admitted)
		}
	}
}

var fresh = cache.Freshness{TTL: time.Minute, StaleIfError: time.Hour, Negative: 10 * time.Second}

// throttled is an upstream's 429.
type throttled struct{}

func (throttled) Error() string             { return "429 Too Many Requests" }
func (throttled) Throttled() bool           { return true }
func (throttled) RetryAfter() time.Duration { return 0 }

// unsupported is the answer of a registry without the API.
type unsupported struct{ error }

func (unsupported) Unsupported() bool { return true }
func (u unsupported) Unwrap() error   { return u.error }

func TestPagesOfReferrersEndWithTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upstream := &pages{all: someReferrers(100, 0), n: 1}
		upstream.last = func(int) (http.Header, []byte, error) {
			<-time.After(3 * time.Second)
			return nil, nil, nil
		}
		larder := serveScripted(t, cache.Options{}, &scripted{host: "one.test", list: upstream.list})
		if got := ask(t, larder, "/v2/one.test/app/referrers/"+digestOfNothing); got.Code != http.StatusServiceUnavailable {
			t.Errorf("%d, %.300s", got.Code, got.Body)
		}
		synctest.Wait()
		<-time.After(time.Minute)
		if upstream.asked > 10 {
			t.Errorf("the upstream was asked %d times after the client had its answer", upstream.asked)
		}
	})
}

func TestUpstreamWithoutReferrersHasNoneWhenItIsDead(t *testing.T) {
	r, clock := newTagRig(t)
	image := r.addImage("v1", ecrtest.Random(1, 10))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	path := referrersPath(app, image.Root.Digest)
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Referrers, Status: http.StatusNotFound})
	wantError(t, r.get(path), http.StatusNotFound, "MANIFEST_UNKNOWN")
	wantHeader(t, r.get(path), "X-Cache", "HIT")
	release()
	throttle := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Referrers, Status: http.StatusTooManyRequests})
	clock.advance(time.Minute)
	wantError(t, r.get(path), http.StatusNotFound, "MANIFEST_UNKNOWN")
	throttle()
	r.ecr.Stop()
	r.restart()
	clock.advance(time.Minute)
	a := r.get(path)
	wantError(t, a, http.StatusNotFound, "MANIFEST_UNKNOWN")
	wantHeader(t, a, "X-Cache", "STALE")
}

func TestReferrersOfAnUnknownRepositoryAreNameUnknown(t *testing.T) {
	r, clock := newTagRig(t)
	path := referrersPath("no/such", digestOfNothing)
	wantError(t, r.get(path), http.StatusNotFound, "NAME_UNKNOWN")
	r.ecr.Stop()
	clock.advance(time.Minute)
	wantError(t, r.get(path), http.StatusServiceUnavailable, "UNAVAILABLE") // it may have come meanwhile
}

// Clients ask for these tags where the registry has no list, and cosign asks for the last
// three everywhere.
func TestTagsOfReferrersAreTagsLikeOthers(t *testing.T) {
	for _, suffix := range []string{"", ".sig", ".att", ".sbom"} {
		t.Run(suffix, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			r := newRig(t, settings{cache: cache.Options{Now: clock.now, Tags: fresh}, timeout: 2 * time.Second})
			image := r.addImage("v1", ecrtest.Random(1, 10))
			tag := cache.ReferrersTag(image.Root.Digest) + suffix
			wantError(t, r.get(manifestPath(app, tag)), http.StatusNotFound, "MANIFEST_UNKNOWN")
			sig := r.addImage(tag, ecrtest.Random(2, 10))
			missing := r.get(manifestPath(app, tag))
			wantError(t, missing, http.StatusNotFound, "MANIFEST_UNKNOWN")
			wantHeader(t, missing, "X-Cache", "HIT")
			release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusTooManyRequests})
			clock.advance(10 * time.Second)
			wantError(t, r.get(manifestPath(app, tag)), http.StatusServiceUnavailable, "UNAVAILABLE") // not "none"
			release()
			clock.advance(10 * time.Second)
			wantTag(t, r.get(manifestPath(app, tag)), sig, "MISS")
			wantTag(t, r.get(manifestPath(app, tag)), sig, "HIT")
			r.ecr.Stop()
			r.restart()
			clock.advance(time.Minute)
			wantTag(t, r.get(manifestPath(app, tag)), sig, "STALE")
			wantError(t, r.get(manifestPath(app, tag+"x")), http.StatusServiceUnavailable, "UNAVAILABLE")
		})
	}
}
