package carry_test

import (
	"bufio"
	"bytes"
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
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a store that serves the API.
type site struct {
	t      *testing.T
	store  *cache.Store
	server *httptest.Server
}

func newSite(t *testing.T, opts cache.Options) *site {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	opts.Log, opts.ScrubEvery = slog.New(slog.DiscardHandler), -1
	store, err := cache.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	carry.New(carry.Options{Store: store, Log: opts.Log}).AddTo(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.Close()
		if err := errors.Join(store.Close(), cachetest.Check(dir)); err != nil {
			t.Error(err)
		}
	})
	return &site{t, store, server}
}

// send sends a request, and returns the status and the body.
func (s *site) send(method, path string, body []byte) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+"/api/v1/"+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.server.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// begin opens a session of an import. end closes it as a client does that was killed.
func (s *site) begin(req carry.ImportRequest) (path string, end func()) {
	s.t.Helper()
	raw, err := json.Marshal(req)
	if err != nil {
		s.t.Fatal(err)
	}
	id, end := s.open("imports", raw)
	return "imports/" + id, end
}

// open opens a session. end closes it as a client does that was killed.
func (s *site) open(kind string, request []byte) (id string, end func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, s.server.URL+"/api/v1/"+kind, bytes.NewReader(request))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.server.Client().Do(post)
	if err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	var session carry.ImportSession // an export's has an ID as well
	if err := json.Unmarshal(line, &session); err != nil || session.ID == "" {
		s.t.Fatalf("%s: %v", line, err)
	}
	return session.ID, func() {
		cancel()
		_ = resp.Body.Close()
	}
}

// packed returns the documents of a bundle with one image, and its blobs.
func packed(t *testing.T, layer string) (carry.ImportLayout, bundletest.Store, *bundle.Plan) {
	t.Helper()
	return packedAs(t, "registry.test/team/app:1", layer)
}

// packedAs is packed for an image with another name.
func packedAs(t *testing.T, name, layer string) (carry.ImportLayout, bundletest.Store, *bundle.Plan) {
	t.Helper()
	images := make(bundletest.Store)
	root := images.AddImage("amd64", layer)
	plan, err := bundle.NewPlan([]bundle.Image{{Name: name, Digest: root.Digest}}, bundle.Options{Manifest: images.Manifest})
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.NewReader(bytes.NewReader(images.Pack(t, plan, 1, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return carry.ImportLayout{Documents: r.Documents()}, images, plan
}

func (s *site) tell(path string, layout carry.ImportLayout) carry.ImportPlan {
	s.t.Helper()
	raw, err := json.Marshal(layout)
	if err != nil {
		s.t.Fatal(err)
	}
	_, body := s.send(http.MethodPost, path+"/layout", raw)
	var plan carry.ImportPlan
	lines := strings.Split(strings.TrimSpace(body), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &plan); err != nil {
		s.t.Fatalf("%s: %v", body, err)
	}
	return plan
}

func TestImageIsVisibleOnceAllOfItIsHere(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, images, plan := packed(t, "layer")
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	told := s.tell(path, layout)
	if told.Error != "" || len(told.Lacking) != len(plan.Description().Blobs) {
		t.Fatalf("%+v", told)
	}
	for i, d := range told.Lacking {
		if status, body := s.send(http.MethodPost, path+"/publish", nil); status != http.StatusOK || strings.Contains(body, `"imported"`) {
			t.Errorf("after %d blobs: %d %s", i, status, body)
		}
		if all, err := s.store.Images(); err != nil || len(all) > 0 {
			t.Errorf("after %d blobs: %v, %v", i, all, err)
		}
		wrong := bytes.Clone(images[d])
		wrong[0] ^= 1
		if status, body := s.send(http.MethodPut, path+"/blobs/"+d.String(), wrong); status != http.StatusUnprocessableEntity {
			t.Errorf("a wrong bit: %d %s", status, body)
		}
		if status, body := s.send(http.MethodPut, path+"/blobs/"+d.String(), images[d]); status != http.StatusNoContent {
			t.Errorf("%d %s", status, body)
		}
	}
	stray := digest.FromString("stray")
	if status, body := s.send(http.MethodPut, path+"/blobs/"+stray.String(), []byte("stray")); status < 400 || !strings.Contains(body, "does not name blob") {
		t.Errorf("a blob that the bundle does not name: %d %s", status, body)
	}
	if status, body := s.send(http.MethodPost, path+"/publish", nil); status != http.StatusOK || !strings.Contains(body, `"imported"`) {
		t.Errorf("%d %s", status, body)
	}
	all, err := s.store.Images()
	if err != nil || len(all) != 1 || !all[0].Complete || !all[0].Pinned {
		t.Errorf("%+v, %v", all, err)
	}
	if _, body := s.send(http.MethodGet, "inventory", nil); !strings.Contains(body, `"name":"registry.test/team/app:1"`) {
		t.Errorf("the inventory is %s", body)
	}
}

func TestReplaceFirstUnpinsNothingForABundleThatCannotFit(t *testing.T) {
	s := newSite(t, cache.Options{MaxSize: 64 << 20})
	layout, images, _ := packed(t, "layer")
	path, end := s.begin(carry.ImportRequest{Bundle: "first"})
	defer end()
	for _, d := range s.tell(path, layout).Lacking {
		if status, body := s.send(http.MethodPut, path+"/blobs/"+d.String(), images[d]); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, body)
		}
	}
	if status, body := s.send(http.MethodPost, path+"/publish", nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	large, _, _ := packedAs(t, "registry.test/team/large:1", strings.Repeat("large ", 12<<20))
	path, endLarge := s.begin(carry.ImportRequest{Bundle: "second", Replace: carry.ReplaceFirst})
	defer endLarge()
	if told := s.tell(path, large); !strings.Contains(told.Error, "beside the 0 that are pinned") || len(told.Unpinned) > 0 {
		t.Errorf("%+v", told)
	}
	if pins, err := s.store.Pins(); err != nil || len(pins) != 1 || pins[0].Bundle != "first" {
		t.Errorf("%+v, %v", pins, err)
	}
}

func TestDryRunPublishesNothing(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, images, _ := packed(t, "layer")
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	for _, d := range s.tell(path, layout).Lacking { // all of it is here, and no image is visible
		if status, body := s.send(http.MethodPut, path+"/blobs/"+d.String(), images[d]); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, body)
		}
	}
	dry, endDry := s.begin(carry.ImportRequest{Bundle: "test", DryRun: true})
	defer endDry()
	if told := s.tell(dry, layout); told.Error != "" || len(told.Lacking) > 0 {
		t.Fatalf("%+v", told)
	}
	status, body := s.send(http.MethodPost, dry+"/publish", nil)
	s.wantRefused("publish", status, body, "nothing is imported in a dry run")
	if all, err := s.store.Images(); err != nil || len(all) > 0 {
		t.Errorf("images %v, %v", all, err)
	}
}

func TestSessionEndsWithItsRequest(t *testing.T) {
	s := newSite(t, cache.Options{MaxSize: 58 << 20})
	layout, images, _ := packed(t, strings.Repeat("a", 5<<20))
	other, _, _ := packed(t, strings.Repeat("b", 5<<20))
	// The index takes 48 MiB of it, and either image fits beside that.
	first, endFirst := s.begin(carry.ImportRequest{Bundle: "first"})
	if told := s.tell(first, layout); told.Error != "" {
		t.Fatal(told.Error)
	}
	second, endSecond := s.begin(carry.ImportRequest{Bundle: "second"})
	defer endSecond()
	if told := s.tell(second, other); told.Error == "" || told.Space == nil {
		t.Errorf("both fit: %+v", told)
	}
	endFirst()
	for d := range images { // until the server has noticed that the client left
		for {
			if status, _ := s.send(http.MethodPut, first+"/blobs/"+d.String(), []byte("x")); status == http.StatusNotFound {
				break
			}
		}
	}
	third, endThird := s.begin(carry.ImportRequest{Bundle: "third"})
	defer endThird()
	if told := s.tell(third, other); told.Error != "" {
		t.Error(told.Error)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, images, _ := packed(t, "layer")
	path, end := s.begin(carry.ImportRequest{Bundle: "test", DryRun: true})
	defer end()
	if told := s.tell(path, layout); told.Error != "" || told.Space.Blobs != len(images) || told.Images[0].State != carry.Planned {
		t.Errorf("%+v", told)
	}
	for d, content := range images {
		if status, body := s.send(http.MethodPut, path+"/blobs/"+d.String(), content); status < 400 {
			t.Errorf("%d %s", status, body)
		}
	}
	if all, err := s.store.Digests(); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestExportNamesWhatIsNotWhole(t *testing.T) {
	s := newSite(t, cache.Options{})
	raw, err := json.Marshal(carry.ExportRequest{Images: []string{"registry.test/team/app:1", "registry.test/team/app:2"}})
	if err != nil {
		t.Fatal(err)
	}
	_, body := s.send(http.MethodPost, "exports", raw)
	for i := range 2 {
		if want := fmt.Sprintf("export registry.test/team/app:%d: no such image in the cache", i+1); !strings.Contains(body, want) {
			t.Errorf("%s does not have %q", body, want)
		}
	}
}
