package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
)

// judgement is a condition that refuses some images and cannot tell of others.
type judgement struct {
	mu      sync.Mutex // guards what follows
	refused map[digest.Digest]bool
	unknown map[digest.Digest]bool
	asked   map[digest.Digest]int
}

func newJudgement(refused ...digest.Digest) *judgement {
	j := &judgement{refused: make(map[digest.Digest]bool), unknown: make(map[digest.Digest]bool), asked: make(map[digest.Digest]int)}
	for _, d := range refused {
		j.refused[d] = true
	}
	return j
}

func (j *judgement) Evaluate(_ context.Context, image policy.Image) (policy.Answer, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked[image.Digest]++
	if j.unknown[image.Digest] {
		return policy.Answer{}, errors.New("the upstream limits requests")
	}
	return policy.Answer{Holds: !j.refused[image.Digest], Reason: "it has no signature: sign it"}, nil
}

func (j *judgement) count(d digest.Digest) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.asked[d]
}

// newPolicy returns a policy with one rule for the repositories below team.
func newPolicy(t testing.TB, mode policy.Mode, signed policy.Condition, file string) *policy.Policy {
	t.Helper()
	p, err := policy.New(policy.Options{File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	match, ok := name.ParsePattern("*/team/*")
	if !ok {
		t.Fatal("no pattern")
	}
	p.Use([]*policy.Rule{{Match: match, Mode: mode, Signed: signed, Offline: time.Hour, Basis: "1"}})
	return p
}

// covered is a rig with an image that the policy refuses and one that it allows, which share a layer.
type covered struct {
	*rig
	condition       *judgement
	allowed         *ecrtest.Added
	refused         *ecrtest.Added
	shared, private digest.Digest // layers of the refused image
}

func newCovered(t testing.TB, mode policy.Mode, set settings) *covered {
	t.Helper()
	c := &covered{condition: newJudgement()}
	set.policy = newPolicy(t, mode, c.condition, "")
	c.rig = newRig(t, set)
	c.allowed = c.addImage("good", ecrtest.Random(1, 1000))
	c.refused = c.addImage("bad", ecrtest.Random(1, 1000), ecrtest.Random(2, 1000))
	c.condition.refused[c.refused.Root.Digest] = true
	c.shared = digest.FromBytes(bytesOf(t, ecrtest.Random(1, 1000)))
	c.private = digest.FromBytes(bytesOf(t, ecrtest.Random(2, 1000)))
	return c
}

// wantCode checks the code of an answer that refuses.
func wantCode(t testing.TB, a answer, status int, code string) {
	t.Helper()
	wantStatus(t, a, status)
	if a.Request.Method != http.MethodHead && !strings.Contains(string(a.body), `"`+code+`"`) {
		t.Errorf("%s %s: %s, want the code %s", a.Request.Method, a.Request.URL, a.body, code)
	}
}

func TestRefusedManifestIsDeniedByTagDigestAndHead(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	for range 2 { // from the upstream and from the cache
		for _, reference := range []string{"bad", c.refused.Root.Digest.String()} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := c.ask(method, manifestPath(app, reference))
				wantCode(t, a, http.StatusForbidden, "DENIED")
				if method == http.MethodGet {
					for _, part := range []string{"*/team/*", c.refused.Root.Digest.String(), "it has no signature: sign it"} {
						if !strings.Contains(string(a.body), part) {
							t.Errorf("the refusal %s does not name %q", a.body, part)
						}
					}
				}
			}
			wantStatus(t, c.get(manifestPath(app, reference), "Range", "bytes=0-9"), http.StatusForbidden)
		}
	}
	wantStatus(t, c.get(manifestPath(app, "good")), http.StatusOK)
	if n := c.condition.count(c.refused.Root.Digest); n != 1 {
		t.Errorf("the condition was asked %d times", n)
	}
}

func TestBlobIsServedOnlyIfAnAllowedManifestNamesIt(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	alone := c.addBlob(app, ecrtest.Random(9, 1000))
	check := func(d digest.Digest, status int) {
		t.Helper()
		for _, a := range []answer{c.get(blobPath(app, d)), c.get(blobPath(app, d), "Range", "bytes=0-9"), c.head(blobPath(app, d))} {
			if status == http.StatusNotFound {
				wantCode(t, a, status, "BLOB_UNKNOWN")
			} else if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusPartialContent {
				t.Errorf("%s: %s: %s", a.Request.URL, a.Status, a.body)
			}
		}
	}
	check(c.shared, http.StatusNotFound) // no manifest is known
	c.get(manifestPath(app, "bad"))
	check(c.shared, http.StatusNotFound)
	check(c.private, http.StatusNotFound)
	wantStatus(t, c.get(manifestPath(app, "good")), http.StatusOK)
	check(c.shared, http.StatusOK)
	check(c.private, http.StatusNotFound)
	check(alone.Digest, http.StatusNotFound)
	check(c.refused.Root.Digest, http.StatusNotFound) // the refused manifest as a blob
}

func TestFewOfManyImagesAreDecidedForOneBlob(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	enforced := c.set.policy
	c.set.policy = nil
	c.restart()
	const images, most = 24, 8
	for i := range images { // which are in the cache, and not decided
		tag := fmt.Sprint("base-", i)
		added := c.addImage(tag, ecrtest.Random(1, 1000), ecrtest.Random(uint64(100+i), 1000))
		c.condition.refused[added.Root.Digest] = true
		wantStatus(t, c.get(manifestPath(app, tag)), http.StatusOK)
	}
	c.set.policy = enforced
	c.restart()
	wantCode(t, c.get(blobPath(app, c.shared)), http.StatusNotFound, "BLOB_UNKNOWN")
	decided := 0
	for _, n := range c.condition.asked {
		decided += n
	}
	if decided == 0 || decided > most {
		t.Errorf("%d images were decided for one blob, want 1 to %d", decided, most)
	}
	wantStatus(t, c.get(manifestPath(app, "good")), http.StatusOK)
	wantStatus(t, c.get(blobPath(app, c.shared)), http.StatusOK)
}

// The layer is in the cache, or on its way there, since another repository has it.
func TestLayerOfARefusedImageIsNotServedFromAnothersBytes(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	layer := ecrtest.Random(2, 1000)
	other, err := c.ecr.AddImage("open/app", "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: layer}}})
	if err != nil {
		t.Fatal(err)
	}
	c.get(manifestPath(app, "bad"))
	wantStatus(t, c.get(manifestPath("open/app", "v1")), http.StatusOK) // which no rule covers
	c.ecr.SetBandwidth(200)
	filling := c.open(http.MethodGet, blobPath("open/app", c.private))
	if filling.StatusCode != http.StatusOK {
		t.Fatal(filling.Status)
	}
	wantCode(t, c.get(blobPath(app, c.private)), http.StatusNotFound, "BLOB_UNKNOWN")
	wantCode(t, c.get(blobPath(app, c.private), "Range", "bytes=0-9"), http.StatusNotFound, "BLOB_UNKNOWN")
	c.ecr.SetBandwidth(0)
	if _, err := io.Copy(io.Discard, filling.Body); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.get(blobPath(app, c.private)), http.StatusNotFound, "BLOB_UNKNOWN")
	wantStatus(t, c.get(blobPath("open/app", other.Blobs[0].Digest)), http.StatusOK)
}

func TestWhatCannotBeDecidedIsTriedAgainLater(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	c.condition.unknown[c.allowed.Root.Digest] = true
	a := c.get(manifestPath(app, "good"))
	wantCode(t, a, http.StatusServiceUnavailable, "UNAVAILABLE")
	wantHeader(t, a, "Retry-After", "5")
	wantCode(t, c.get(blobPath(app, c.shared)), http.StatusNotFound, "BLOB_UNKNOWN")
	if n := c.condition.count(c.allowed.Root.Digest); n != 1 {
		t.Errorf("it was asked %d times at once", n)
	}
}

func TestWarningServesAndMarks(t *testing.T) {
	c := newCovered(t, policy.Warn, settings{})
	a := c.get(manifestPath(app, "bad"))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "X-Larder-Policy", "refused")
	wantStatus(t, c.get(blobPath(app, c.private)), http.StatusOK)
	wantHeader(t, c.get(manifestPath(app, "good")), "X-Larder-Policy", "")
	all := c.set.policy.Decisions()
	if len(all) != 2 || all[0].Mode != policy.Warn {
		t.Errorf("decisions: %+v", all)
	}
}

func TestUncoveredRepositoryIsServedAsBefore(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	added, err := c.ecr.AddImage("open/app", "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(5, 1000)}}})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c.get(blobPath("open/app", added.Blobs[0].Digest)), http.StatusOK)
	wantStatus(t, c.get(manifestPath("open/app", "v1")), http.StatusOK)
	if n := c.condition.count(added.Root.Digest); n != 0 {
		t.Errorf("the condition was asked %d times", n)
	}
}

func TestManyClientsOfAnUndecidedImageShareOneDecision(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	var clients sync.WaitGroup
	for range 64 {
		req := c.request(http.MethodGet, manifestPath(app, "good"))
		clients.Go(func() {
			if a := c.try(req); a.Response == nil || a.StatusCode != http.StatusOK {
				t.Errorf("got %+v", a)
			}
		})
	}
	clients.Wait()
	if n := c.condition.count(c.allowed.Root.Digest); n != 1 {
		t.Errorf("the condition was asked %d times, want once", n)
	}
	if n := c.ecr.Stats().Requests[ecrtest.Manifest]; n > 2 {
		t.Errorf("the upstream was asked %d times for the manifest", n)
	}
}

func TestChildrenAreServedThroughTheirIndexAndNotWithout(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	signed, err := c.ecr.AddImage(app, "multi", ecrtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []ecrtest.Layer{{Content: ecrtest.Random(7, 1000)}}})
	if err != nil {
		t.Fatal(err)
	}
	child := signed.Manifests[1].Digest
	c.condition.mu.Lock()
	for _, m := range signed.Manifests { // only the index is signed
		c.condition.refused[m.Digest] = true
	}
	c.condition.mu.Unlock()
	wantCode(t, c.get(manifestPath(app, signed.Manifests[0].Digest.String())), http.StatusForbidden, "DENIED")
	wantStatus(t, c.get(manifestPath(app, "multi")), http.StatusOK)
	wantStatus(t, c.get(manifestPath(app, child.String())), http.StatusOK)
	var m ocispec.Manifest
	if err := json.Unmarshal(c.get(manifestPath(app, child.String())).body, &m); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c.get(blobPath(app, m.Config.Digest)), http.StatusOK)
	wantStatus(t, c.head(blobPath(app, m.Layers[0].Digest)), http.StatusOK)
}

func TestChildOfAnotherRepositorysIndexIsDecidedByItself(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	multi := ecrtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []ecrtest.Layer{{Content: ecrtest.Random(7, 1000)}}}
	index, err := c.ecr.AddImage(app, "multi", multi)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ecr.AddImage("team/other", "", multi); err != nil {
		t.Fatal(err)
	}
	child := index.Manifests[0].Digest
	c.condition.mu.Lock()
	c.condition.refused[child] = true
	c.condition.mu.Unlock()
	wantStatus(t, c.get(manifestPath(app, "multi")), http.StatusOK)
	wantCode(t, c.get(manifestPath("team/other", child.String())), http.StatusForbidden, "DENIED")
	wantStatus(t, c.get(manifestPath(app, child.String())), http.StatusOK)
}

// What a runtime can run is decided about, whatever its tag and its subject say. Signatures are served.
func TestOnlyAttachmentsAreExempt(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{})
	sig := c.refused.Root.Digest
	tag := "sha256-" + sig.Encoded() + ".sig"
	if _, err := c.ecr.AddImage(app, tag, ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(11, 1000)}}}); err != nil {
		t.Fatal(err)
	}
	var evil ocispec.Manifest
	raw := c.get(manifestPath(app, tag)).body // decided while it is still allowed
	if err := json.Unmarshal(raw, &evil); err != nil {
		t.Fatal(err)
	}
	cosign := func(layer ocispec.Descriptor) digest.Digest {
		m := evil
		m.Layers = []ocispec.Descriptor{layer}
		m.Layers[0].MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
		m.Subject = &c.refused.Root
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		desc, err := c.ecr.AddManifest(app, "", ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			t.Fatal(err)
		}
		c.condition.mu.Lock()
		c.condition.refused[desc.Digest] = true
		c.condition.mu.Unlock()
		return desc.Digest
	}
	text := c.addBlob(app, ecrtest.Bytes([]byte(`{"critical":{"identity":{}}}`)))
	binary := c.addBlob(app, ecrtest.Bytes(append([]byte(`{"critical`), make([]byte, 512)...)))
	signature, disguised := cosign(text), cosign(binary)
	wantStatus(t, c.get(manifestPath(app, signature.String())), http.StatusOK)
	a := c.get(blobPath(app, text.Digest))
	wantStatus(t, a, http.StatusOK)
	wantCode(t, c.get(manifestPath(app, disguised.String())), http.StatusForbidden, "DENIED")
	wantCode(t, c.get(blobPath(app, binary.Digest)), http.StatusNotFound, "BLOB_UNKNOWN")
}

func TestDecisionsHoldAfterARestartWithoutTheUpstream(t *testing.T) {
	c := newCovered(t, policy.Enforce, settings{cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	file := filepath.Join(t.TempDir(), "policy.json")
	c.set.policy = newPolicy(t, policy.Enforce, c.condition, file)
	c.restart()
	wantStatus(t, c.get(manifestPath(app, "good")), http.StatusOK)
	c.cache(blobPath(app, c.shared))
	wantStatus(t, c.get(manifestPath(app, "bad")), http.StatusForbidden)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	c.set.policy.Run(ctx) // which writes the file once more

	c.condition.mu.Lock()
	c.condition.unknown[c.allowed.Root.Digest], c.condition.unknown[c.refused.Root.Digest] = true, true
	c.condition.mu.Unlock()
	c.set.policy = newPolicy(t, policy.Enforce, c.condition, file)
	c.ecr.Stop()
	c.restart()
	// The blob first: no manifest was asked for since the start.
	wantStatus(t, c.get(blobPath(app, c.shared)), http.StatusOK)
	wantStatus(t, c.get(manifestPath(app, "good")), http.StatusOK)
	wantStatus(t, c.get(manifestPath(app, "bad")), http.StatusForbidden)
}

func TestRefusalIsALineOfTheAudit(t *testing.T) {
	log, lines := newAudit(t, audit.Settings{File: filepath.Join(t.TempDir(), "audit.json")})
	c := newCovered(t, policy.Enforce, settings{audit: log})
	c.condition.unknown[c.allowed.Root.Digest] = true
	c.get(manifestPath(app, "bad"))
	c.get(manifestPath(app, "good"))
	all := lines()
	if len(all) != 2 {
		t.Fatalf("lines: %v", all)
	}
	for i, want := range []struct{ why, digest string }{{"policy", c.refused.Root.Digest.String()}, {"undecided", c.allowed.Root.Digest.String()}} {
		if all[i]["why"] != want.why || all[i]["digest"] != want.digest || all[i]["allowed"] != false {
			t.Errorf("line %d: %v, want %+v", i, all[i], want)
		}
	}
}

func TestAuditMarksWhatEnforcingWouldRefuse(t *testing.T) {
	log, lines := newAudit(t, audit.Settings{File: filepath.Join(t.TempDir(), "audit.json")})
	c := newCovered(t, policy.Warn, settings{audit: log})
	undecided, err := c.ecr.AddImage(app, "undecided", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(9, 1000)}}})
	if err != nil {
		t.Fatal(err)
	}
	c.condition.unknown[undecided.Root.Digest] = true
	tags := []string{"bad", "undecided", "good"}
	for _, tag := range tags {
		wantStatus(t, c.get(manifestPath(app, tag)), http.StatusOK)
	}
	all := lines()
	if len(all) != len(tags) {
		t.Fatalf("lines: %v", all)
	}
	for i, want := range []any{"policy", "undecided", nil} {
		if all[i]["warned"] != want || all[i]["allowed"] != true {
			t.Errorf("%s: %v, want %v", tags[i], all[i], want)
		}
	}
}

func TestHitUnderADecidedRuleAllocatesNoMore(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	allocs := func(p *policy.Policy) [2]float64 {
		r := newRig(t, settings{policy: p, cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
		added := r.addImage("v1", ecrtest.Random(1, 1000))
		r.get(manifestPath(app, "v1"))
		blob := blobPath(app, added.Blobs[0].Digest)
		r.cache(blob)
		var got [2]float64
		for i, path := range []string{manifestPath(app, "v1"), blob} {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
			got[i] = testing.AllocsPerRun(200, func() {
				w := &nowhere{header: make(http.Header)}
				r.proxy.ServeHTTP(w, req)
				if w.status != http.StatusOK {
					t.Fatalf("%s: %d", path, w.status)
				}
			})
		}
		return got
	}
	without := allocs(nil)
	with := allocs(newPolicy(t, policy.Enforce, newJudgement(), ""))
	for i, what := range []string{"a manifest", "a blob"} {
		if with[i] > without[i] {
			t.Errorf("a hit of %s allocates %v times under a rule, and %v times without", what, with[i], without[i])
		}
	}
}

// nowhere is a ResponseWriter that drops what is sent.
type nowhere struct {
	header http.Header
	status int
}

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(status int)      { w.status = status }
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkHotManifestUnderARule is BenchmarkHotManifest with a policy that has decided.
func BenchmarkHotManifestUnderARule(b *testing.B) {
	r := newRig(b, settings{policy: newPolicy(b, policy.Enforce, newJudgement(), ""), cache: cache.Options{Tags: cache.Freshness{TTL: time.Hour}}})
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: swarm}
	b.Cleanup(transport.CloseIdleConnections)
	r.http = &http.Client{Transport: transport}
	r.addImage("v1", ecrtest.Random(1, 1000))
	path := manifestPath(app, "v1")
	size := int64(len(r.get(path).body))
	b.SetBytes(size)
	b.ReportAllocs() // including those of the client
	for b.Loop() {
		if err := r.drain(b.Context(), path, size); err != nil {
			b.Fatal(err)
		}
	}
}
