package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// hinted is a Larder in this process, in front of a fake ECR.
type hinted struct {
	ecr    *ecrtest.Running
	cfg    *config.Config
	client *upstream.Client
	store  *cache.Store
	rules  *lifecycle
	tags   *immutableTags // whose run is the test's
	server *httptest.Server
	log    bytes.Buffer
}

// setCredentials gives the AWS SDK the credentials that the fake ECR knows, and
// keeps it from looking for others.
func setCredentials(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           "AKIDLARDERTEST",
		"AWS_SECRET_ACCESS_KEY":       "secret",
		"AWS_SESSION_TOKEN":           "",
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED":   "true",
	} {
		t.Setenv(name, value)
	}
}

// startHinted gives the cache room for two images of 3 MiB and not for three: 57
// MiB less some 50 for the index.
//
// The texts are more keys of the configuration, of the upstream's ecr and at the
// top.
func startHinted(t *testing.T, ecrKeys, keys string) *hinted {
	t.Helper()
	return startHintedAt(t, time.Now, ecrKeys, keys)
}

// startHintedAt is startHinted by another clock than the machine's.
func startHintedAt(t *testing.T, now func() time.Time, ecrKeys, keys string) *hinted {
	t.Helper()
	setCredentials(t)
	// A clock that leaps would have tokens expire that in truth are renewed before.
	fake, err := ecrtest.Start(ecrtest.Options{Now: now, TokenTTL: 100 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "larder.yaml")
	text := fmt.Sprintf("upstreams: [{host: %q, endpoint: %q, ecr: {api_endpoint: %q%s}}]\n%s\n", fake.Host(), fake.Endpoint, fake.Endpoint, ecrKeys, keys)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadChecked(file, checkRules)
	if err != nil {
		t.Fatal(err)
	}
	h := &hinted{ecr: fake, cfg: cfg}
	log := slog.New(slog.NewTextHandler(&h.log, nil))
	client := upstream.NewClient(upstream.Options{Lookup: lookup(cfg), Log: log})
	h.client = client
	h.tags = newImmutableTags(cfg, client, log)
	h.tags.now, h.tags.pause = now, 0
	h.store, err = cache.Open(t.TempDir(), cache.Options{
		MaxSize: 57 << 20, LowWater: 1, Log: slog.New(slog.DiscardHandler), Now: now,
		Tags: cache.Freshness{TTL: cfg.Tags.TTL, Immutable: h.tags.since, ImmutableTTL: immutableTTL},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.rules = newLifecycle(cfg, client, h.store, log)
	h.rules.pause = 0
	h.server = httptest.NewServer(proxy.New(proxy.Options{
		Upstreams: sources(cfg, client, log), Default: fake.Host(), Store: h.store, Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(func() {
		h.server.Close()
		for _, end := range []func() error{h.store.Close, client.Close, fake.Close} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	return h
}

// add gives the upstream an image of one layer that was pushed a while ago.
func (h *hinted) add(t *testing.T, tag string, pushed time.Duration) *ecrtest.Added {
	t.Helper()
	layer := ecrtest.Layer{Content: ecrtest.TarLayer("data", uint64(len(tag))+uint64(pushed), 3<<20)}
	added, err := h.ecr.AddImage("team/app", tag, ecrtest.Image{Layers: []ecrtest.Layer{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ecr.SetImageState("team/app", added.Root.Digest, ecrtest.ImageState{Pushed: time.Now().Add(-pushed)}); err != nil {
		t.Fatal(err)
	}
	return added
}

// pull asks for an image as a runtime does, again and again until all of it is
// in the cache: a client has the last byte of a blob before that is.
func (h *hinted) pull(t *testing.T, tag string, img *ecrtest.Added) {
	t.Helper()
	paths := []string{"manifests/" + tag}
	for _, blob := range img.Blobs {
		paths = append(paths, "blobs/"+blob.Digest.String())
	}
	for _, path := range paths {
		for h.get(t, path) != "HIT" {
		}
	}
}

// get returns the X-Cache of an answer.
func (h *hinted) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := h.server.Client().Get(h.server.URL + "/v2/team/app/" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return resp.Header.Get("X-Cache")
}

// holds reports whether the image's layers are in the cache.
func (h *hinted) holds(img *ecrtest.Added) bool {
	for _, blob := range img.Blobs {
		if _, err := h.store.Stat(blob.Digest); err != nil {
			return false
		}
	}
	return true
}

// moreThanTwo is a policy that expires all images but the latest two.
const moreThanTwo = `{"rules": [{"rulePriority": 10, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2}, "action": {"type": "expire"}}]}`

func (h *hinted) setPolicy(t *testing.T, text string) {
	t.Helper()
	if err := h.ecr.SetLifecyclePolicy("team/app", text); err != nil {
		t.Fatal(err)
	}
}

func (h *hinted) refresh(t *testing.T) {
	t.Helper()
	if err := h.rules.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// expired returns the tags of the images that have expired, and by what.
func (h *hinted) expired(t *testing.T) map[string]string {
	t.Helper()
	images, err := h.store.Images()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, img := range images {
		if img.Expired != nil {
			all[cmp.Or(img.Tag, img.Digest.String())] = fmt.Sprint(img.Expired.Source, " ", img.Expired.Rule)
		}
	}
	return all
}

func TestExpiredImagesAreEvictedFirst(t *testing.T) {
	for _, c := range []struct {
		name, keys string
		keepsOld   bool
	}{
		{"hint", "", false},
		{"off", ", lifecycle: \"off\"", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := startHinted(t, c.keys, "")
			old, young := h.add(t, "old", 48*time.Hour), h.add(t, "young", 2*time.Hour)
			h.setPolicy(t, moreThanTwo)
			third := h.add(t, "third", time.Hour)
			h.pull(t, "young", young)
			h.pull(t, "old", old) // the one that expired was used last
			h.refresh(t)
			h.pull(t, "third", third)
			if h.holds(old) != c.keepsOld || h.holds(young) == c.keepsOld {
				t.Errorf("held: the expired image %t, the other %t", h.holds(old), h.holds(young))
			}
		})
	}
}

func TestRefusedLifecyclePolicyIsSaidOnce(t *testing.T) {
	h := startHinted(t, "", "")
	img := h.add(t, "v1", time.Hour)
	h.pull(t, "v1", img)
	h.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Status: http.StatusBadRequest,
		Body: `{"__type":"AccessDeniedException","message":"no"}`})
	for range 2 {
		h.refresh(t)
	}
	if n := strings.Count(h.log.String(), "ecr:GetLifecyclePolicy"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &h.log)
	}
}

// threeWithOneThatExpired has a policy that expires the oldest of three images,
// of which the cache holds the older two.
func threeWithOneThatExpired(t *testing.T, ecrKeys string) (h *hinted, old, young *ecrtest.Added) {
	h = startHinted(t, ecrKeys, "")
	old, young = h.add(t, "old", 48*time.Hour), h.add(t, "young", 2*time.Hour)
	h.add(t, "third", time.Hour)
	h.setPolicy(t, moreThanTwo)
	h.pull(t, "old", old)
	h.pull(t, "young", young)
	h.refresh(t)
	if diff := gocmp.Diff(map[string]string{"old": "ecr 10"}, h.expired(t)); diff != "" {
		t.Fatalf("expired (-want +got):\n%s", diff)
	}
	return h, old, young
}

func TestExpiredImageThatIsGoneUpstreamIsRemovedWhereThatIsEnforced(t *testing.T) {
	gone := func(t *testing.T, h *hinted, old *ecrtest.Added) {
		if err := h.ecr.RemoveManifest("team/app", old.Root.Digest); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		keys    string
		happens func(*testing.T, *hinted, *ecrtest.Added)
		removed bool
		asked   int // about manifests
	}{
		"enforce":     {", lifecycle: enforce", gone, true, 1},
		"hint":        {"", gone, false, 0},
		"still there": {", lifecycle: enforce", func(*testing.T, *hinted, *ecrtest.Added) {}, false, 0},
		"pinned": {", lifecycle: enforce", func(t *testing.T, h *hinted, old *ecrtest.Added) {
			if err := h.store.Pin(cache.Repository{Upstream: h.ecr.Host(), Name: "team/app"}, "old"); err != nil {
				t.Fatal(err)
			}
			gone(t, h, old)
		}, false, 0},
		"answered otherwise": {", lifecycle: enforce", func(t *testing.T, h *hinted, old *ecrtest.Added) {
			gone(t, h, old)
			h.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusNotImplemented})
		}, false, 1},
		"not in the listing, and still there": {", lifecycle: enforce", func(t *testing.T, h *hinted, old *ecrtest.Added) {
			gone(t, h, old)
			h.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusOK, Header: http.Header{
				"Docker-Content-Digest": {old.Root.Digest.String()}}})
		}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h, old, young := threeWithOneThatExpired(t, c.keys)
			c.happens(t, h, old)
			before := h.ecr.Stats().Requests[ecrtest.Manifest]
			h.refresh(t)
			if h.holds(old) == c.removed || !h.holds(young) {
				t.Errorf("held: the expired image %t, the other %t", h.holds(old), h.holds(young))
			}
			if asked := h.ecr.Stats().Requests[ecrtest.Manifest] - before; asked != c.asked {
				t.Errorf("%d questions about manifests, want %d", asked, c.asked)
			}
			if _, expired := h.expired(t)["old"]; expired == c.removed {
				t.Errorf("the verdict is kept: %t", expired)
			}
		})
	}
}

func TestVerdictIsKeptWhileThePolicyCannotBeRead(t *testing.T) {
	h, _, _ := threeWithOneThatExpired(t, "")
	remove := h.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Status: http.StatusInternalServerError})
	h.refresh(t)
	remove()
	if _, kept := h.expired(t)["old"]; !kept {
		t.Error("it is dropped when ECR fails")
	}
	h.setPolicy(t, "")
	h.refresh(t)
	if _, kept := h.expired(t)["old"]; kept {
		t.Error("it is kept without a policy")
	}
}

func TestImagesThatWerePulledByDigestOnlyExpireToo(t *testing.T) {
	h := startHinted(t, "", "")
	old := h.add(t, "old", 48*time.Hour)
	h.add(t, "young", 2*time.Hour)
	h.add(t, "third", time.Hour)
	h.setPolicy(t, moreThanTwo)
	h.get(t, "manifests/"+old.Root.Digest.String())
	h.refresh(t)
	if diff := gocmp.Diff(map[string]string{old.Root.Digest.String(): "ecr 10"}, h.expired(t)); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

const oneOfTeam = `
lifecycle:
  - match: "*/team/*"
    rules:
      - rulePriority: 5
        selection: {tagStatus: any, countType: imageCountMoreThan, countNumber: 1}
        action: {type: expire}
`

func TestLocalRulesGoByWhatTheCacheKnows(t *testing.T) {
	h := startHinted(t, ", lifecycle: \"off\"", oneOfTeam)
	first, second := h.add(t, "first", time.Hour), h.add(t, "second", 48*time.Hour) // came in the other order at ECR
	h.pull(t, "first", first)
	h.pull(t, "second", second)
	h.pull(t, "first", first)
	h.refresh(t)
	if diff := gocmp.Diff(map[string]string{"first": "local 5"}, h.expired(t)); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
	if n := h.ecr.Stats().Requests[ecrtest.API]; n != 1 {
		t.Errorf("%d calls of the API, want the one for a token", n)
	}
	h.pull(t, "third", h.add(t, "third", 3*time.Hour))
	if h.holds(first) || !h.holds(second) {
		t.Errorf("held: the expired image %t, the other %t", h.holds(first), h.holds(second))
	}
}

func TestImageExpiresByLocalRulesOrByECRs(t *testing.T) {
	h := startHinted(t, "", oneOfTeam)
	old, young := h.add(t, "old", 48*time.Hour), h.add(t, "young", 2*time.Hour)
	h.add(t, "third", time.Hour)
	h.setPolicy(t, moreThanTwo)
	h.pull(t, "young", young)
	h.pull(t, "old", old)
	h.refresh(t)
	if diff := gocmp.Diff(map[string]string{"old": "ecr 10", "young": "local 5"}, h.expired(t)); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

func TestOlderOfTwoVerdictsCounts(t *testing.T) {
	verdict := func(name string, since int64, source string) cache.Verdict {
		return cache.Verdict{Digest: digest.FromString(name), Expiry: cache.Expiry{Since: time.Unix(since, 0), Source: source}}
	}
	got := union(
		[]cache.Verdict{verdict("a", 1, sourceECR), verdict("b", 2, sourceECR), verdict("c", 3, sourceECR)},
		[]cache.Verdict{verdict("b", 1, sourceLocal), verdict("c", 4, sourceLocal), verdict("d", 5, sourceLocal)})
	want := []cache.Verdict{verdict("a", 1, sourceECR), verdict("b", 1, sourceLocal), verdict("c", 3, sourceECR), verdict("d", 5, sourceLocal)}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("union (-want +got):\n%s", diff)
	}
}
