package carry_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
)

// wantRefused checks that a request ended in an error that says this, and in nothing of this
// machine.
func (s *site) wantRefused(what string, status int, body, want string) {
	s.t.Helper()
	if status < 400 && !strings.Contains(body, `"error"`) || !strings.Contains(body, want) || len(body) > 4000 || strings.Contains(body, s.t.Name()) {
		s.t.Errorf("%s: %d %.500s, want %q", what, status, body, want)
	}
}

// wantEmpty checks that nothing is visible and nothing is kept.
func (s *site) wantEmpty(after string) {
	s.t.Helper()
	images, err := s.store.Images()
	if err != nil || len(images) > 0 {
		s.t.Errorf("%s: images %v, %v", after, images, err)
	}
	digests, err := s.store.Digests()
	if err != nil || len(digests) > 0 {
		s.t.Errorf("%s: blobs %v, %v", after, digests, err)
	}
}

func TestRequestsWithoutASessionAreRefused(t *testing.T) {
	s := newSite(t, cache.Options{})
	d := digest.FromString("x").String()
	for _, id := range []string{"none", "..%2f..", "%00", strings.Repeat("A", 10_000), "%1b[2J", "*"} {
		for method, path := range map[string]string{
			http.MethodGet:  "exports/" + id + "/blobs/" + d,
			http.MethodPut:  "imports/" + id + "/blobs/" + d,
			http.MethodPost: "imports/" + id + "/publish",
		} {
			status, body := s.send(method, path, []byte("x"))
			s.wantRefused(fmt.Sprintf("%s %.30q", method, path), status, body, "there is no such session")
		}
	}
	s.wantEmpty("no session")
}

func TestBodyThatCannotBeReadIsABadRequest(t *testing.T) {
	s := newSite(t, cache.Options{})
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	for _, request := range []string{"imports", "exports", path + "/layout"} {
		for _, body := range []string{"", "[]", "{"} {
			if status, got := s.send(http.MethodPost, request, []byte(body)); status != http.StatusBadRequest {
				t.Errorf("POST %s with %q: %d %s", request, body, status, got)
			}
		}
	}
}

func TestStrangeRequestsAreRefused(t *testing.T) {
	s := newSite(t, cache.Options{})
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	a := digest.FromString("a").String()
	deep := strings.Repeat("[", 100_000)
	documents := func(index, blobs string) string {
		return fmt.Sprintf(`{"documents":{"oci-layout":%q,"index.json":%q},"blobs":%s}`,
			base64.StdEncoding.EncodeToString([]byte(`{"imageLayoutVersion":"1.0.0"}`)), base64.StdEncoding.EncodeToString([]byte(index)), blobs)
	}
	named := `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + a + `","size":1,"annotations":{"io.containerd.image.name":"registry.test/app:1"}}]}`
	for _, c := range []struct{ name, method, path, body, want string }{
		{"an import of nothing", http.MethodPost, "imports", "", "read the request"},
		{"an import of a list", http.MethodPost, "imports", "[]", "cannot unmarshal"},
		{"an import that nests deeply", http.MethodPost, "imports", deep, "exceeded max depth"},
		{"an import with a bundle that is a number", http.MethodPost, "imports", `{"bundle":1}`, "bundle"},
		{"an import of more bytes than a request has", http.MethodPost, "imports", `"` + strings.Repeat(" ", 32<<20), "more than 33554432 bytes"},
		{"an export of nothing", http.MethodPost, "exports", "", "read the request"},
		{"an export that nests deeply", http.MethodPost, "exports", deep, "exceeded max depth"},
		{"an export of an empty name", http.MethodPost, "exports", `{"images":[""]}`, "error"},
		{"an export of a path", http.MethodPost, "exports", `{"images":["../../etc/passwd"]}`, "error"},
		{"an export of a name with an escape", http.MethodPost, "exports", `{"images":["registry.test/\u001b[2J:1"]}`, "error"},
		{"an export of a name of 1 kB", http.MethodPost, "exports", `{"images":["registry.test/` + strings.Repeat("a", 1000) + `:1"]}`, "error"},
		{"an export for no platform", http.MethodPost, "exports", `{"images":[],"platforms":["//"]}`, "platform"},
		{"an export of a platform with an escape", http.MethodPost, "exports", `{"images":[],"platforms":["\u001b[2J"]}`, "platform"},
		{"an export of a content that is a path", http.MethodPost, "exports", `{"contents":["../../etc/passwd"]}`, "error"},
		{"an export of an empty content", http.MethodPost, "exports", `{"contents":[""]}`, "error"},
		{"an export of a content that is not here", http.MethodPost, "exports", `{"contents":["` + a + `"]}`, "does not have 1 blobs any more"},
		{"a layout that is null", http.MethodPost, path + "/layout", `null`, "no OCI layout"},
		{"a layout whose documents are null", http.MethodPost, path + "/layout", `{"documents":{"index.json":null,"oci-layout":null}}`, "no OCI layout"},
		{"a layout with a document of another name", http.MethodPost, path + "/layout", `{"documents":{"../x":"eA=="}}`, "may have 0"},
		{"a layout that is no base64", http.MethodPost, path + "/layout", `{"documents":{"index.json":"***"}}`, "illegal base64"},
		{"a layout without images", http.MethodPost, path + "/layout", documents(`{}`, `null`), "no image with a name"},
		{"a blob of a layout that is a path", http.MethodPost, path + "/layout", documents(named, `[{"digest":"../x","size":1}]`), "digest"},
		{"a blob of a layout with a negative size", http.MethodPost, path + "/layout", documents(named, `[{"digest":"`+a+`","size":-1}]`), "cannot have -1 bytes"},
		{"a blob of a layout without bytes", http.MethodPost, path + "/layout", documents(named, `[{"digest":"`+a+`","size":0}]`), "cannot have 0 bytes"},
		{"a blob of a layout in two sizes", http.MethodPost, path + "/layout", documents(named, `[{"digest":"`+a+`","size":1},{"digest":"`+a+`","size":2}]`), "both 1 and 2 bytes"},
		{"a blob of the largest size", http.MethodPost, path + "/layout", documents(named, fmt.Sprintf(`[{"digest":%q,"size":%d}]`, a, int64(math.MaxInt64))), "no disk"},
		{"blobs whose sum is negative", http.MethodPost, path + "/layout", documents(named, fmt.Sprintf(`[{"digest":%q,"size":%d},{"digest":%q,"size":%[2]d}]`, a, int64(math.MaxInt64-1<<20), digest.FromString("b"))), "no disk"},
		{"a publication before the layout", http.MethodPost, path + "/publish", "", "not known yet"},
		{"a blob that is a path", http.MethodPut, path + "/blobs/..%2f..%2fetc%2fpasswd", "x", "digest"},
		{"a blob of an unknown algorithm", http.MethodPut, path + "/blobs/md5:" + strings.Repeat("0", 32), "x", "digest"},
		{"a blob with a digest in capitals", http.MethodPut, path + "/blobs/sha256:" + strings.Repeat("A", 64), "x", "digest"},
		{"a blob with a zero byte in its digest", http.MethodPut, path + "/blobs/sha256:%00" + strings.Repeat("0", 63), "x", "digest"},
		{"a blob without bytes", http.MethodPut, path + "/blobs/" + a, "", "cannot have 0 bytes"},
		{"a blob of other bytes", http.MethodPut, path + "/blobs/" + a, "b", "match"},
		{"the empty blob with bytes", http.MethodPut, path + "/blobs/" + digest.FromString("").String(), "x", "cannot have 1 bytes"},
	} {
		status, body := s.send(c.method, c.path, []byte(c.body))
		s.wantRefused(c.name, status, body, c.want)
	}
	s.wantEmpty("strange requests")
}

// A client may announce any size, and send something else.
func TestBlobsWhoseSizeIsALieAreRefused(t *testing.T) {
	s := newSite(t, cache.Options{})
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	a := digest.FromString("a").String()
	for name, size := range map[string]int64{"unknown": -1, "a petabyte more than there is": 1 << 51, "the largest": math.MaxInt64} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.server.URL+"/api/v1/"+path+"/blobs/"+a, io.MultiReader(strings.NewReader("a")))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = size
		resp, err := s.server.Client().Do(req)
		if err != nil {
			continue // the client's own error: it had fewer bytes than it said
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		s.wantRefused(name, resp.StatusCode, string(body), "bytes")
	}
	s.wantEmpty("sizes that are lies")
	if status, body := s.send(http.MethodPut, path+"/blobs/"+a, []byte("a")); status != http.StatusNoContent {
		t.Errorf("the right blob after that: %d %s", status, body)
	}
}

func TestBlobsThatComeTwiceAndAtOnceAreStoredOnce(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, images, _ := packed(t, strings.Repeat("layer", 1<<20)) // more than a manifest may have
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	if told := s.tell(path, layout); told.Error != "" {
		t.Fatal(told.Error)
	}
	var all sync.WaitGroup
	for d, content := range images {
		for range 6 {
			all.Go(func() {
				if status, body := s.send(http.MethodPut, path+"/blobs/"+d.String(), content); status != http.StatusNoContent {
					t.Errorf("%s: %d %s", d, status, body)
				}
			})
		}
	}
	for range 6 { // a publication meanwhile shows all of the image or nothing
		all.Go(func() {
			if status, body := s.send(http.MethodPost, path+"/publish", nil); status != http.StatusOK || strings.Contains(body, `"failed"`) {
				t.Errorf("published: %d %s", status, body)
			}
		})
		all.Go(func() {
			if told := s.tell(path, layout); told.Error != "" {
				t.Error(told.Error)
			}
		})
	}
	all.Wait()
	for range 2 {
		if status, body := s.send(http.MethodPost, path+"/publish", nil); status != http.StatusOK || !strings.Contains(body, `"imported"`) {
			t.Errorf("%d %s", status, body)
		}
	}
	if got, err := s.store.Images(); err != nil || len(got) != 1 || !got[0].Complete {
		t.Errorf("%+v, %v", got, err)
	}
}

// A session has one plan. What another layout in the same session says does not make the
// blobs of the first visible by other names than its own.
func TestSecondLayoutOfASessionShowsNothingThatIsNotThere(t *testing.T) {
	s := newSite(t, cache.Options{})
	first, images, _ := packed(t, "first")
	second, _, _ := packed(t, "second")
	path, end := s.begin(carry.ImportRequest{Bundle: "test"})
	defer end()
	s.tell(path, first)
	for d, content := range images {
		s.send(http.MethodPut, path+"/blobs/"+d.String(), content)
	}
	if told := s.tell(path, second); told.Error != "" {
		t.Error(told.Error)
	}
	status, body := s.send(http.MethodPost, path+"/publish", nil)
	if status != http.StatusOK || strings.Contains(body, `"imported"`) {
		t.Errorf("%d %s", status, body)
	}
	if got, err := s.store.Images(); err != nil || len(got) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	broken := carry.ImportLayout{Documents: bundle.Documents{"larder-bundle.json": []byte("{}")}}
	if told := s.tell(path, broken); told.Error == "" {
		t.Error("a broken layout is planned")
	}
}

func TestHundredsOfSessionsEndWithTheirClients(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, _, _ := packed(t, strings.Repeat("a", 1<<20))
	var ends []func()
	var paths []string
	for i := range 300 {
		path, end := s.begin(carry.ImportRequest{Bundle: fmt.Sprint(i)})
		if i%100 == 0 {
			if told := s.tell(path, layout); told.Error != "" {
				t.Error(told.Error)
			}
		}
		ends, paths = append(ends, end), append(paths, path)
	}
	for _, end := range ends {
		end()
	}
	for _, path := range paths {
		for { // until the server has noticed
			if status, _ := s.send(http.MethodPost, path+"/publish", nil); status == http.StatusNotFound {
				break
			}
		}
	}
	s.wantEmpty("hundreds of sessions")
}

// A name of a bundle goes to the log, to pins and to the inventory.
func TestStrangeNamesOfBundlesAndImagesAreKeptAsTheyAreOrRefused(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, images, _ := packed(t, "layer")
	for _, name := range []string{"\x1b[2J", "../../etc/passwd", "a\nb", "\u202e", strings.Repeat("n", 1<<16), "\x00"} {
		path, end := s.begin(carry.ImportRequest{Bundle: name})
		s.tell(path, layout)
		for d, content := range images {
			s.send(http.MethodPut, path+"/blobs/"+d.String(), content)
		}
		if status, body := s.send(http.MethodPost, path+"/publish", nil); status != http.StatusOK {
			t.Errorf("%.20q: %d %.200s", name, status, body)
		}
		end()
		status, body := s.send(http.MethodGet, "inventory", nil)
		if _, err := bundle.ReadInventory(bytes.NewReader([]byte(body))); err != nil || status != http.StatusOK {
			t.Errorf("%.20q: the inventory cannot be read: %v", name, err)
		}
	}
}

func TestExportOfWhatIsRemovedMeanwhileIsWholeOrAnError(t *testing.T) {
	s := newSite(t, cache.Options{})
	layout, images, _ := packed(t, "layer")
	path, end := s.begin(carry.ImportRequest{Bundle: "test", NoPin: true})
	s.tell(path, layout)
	for d, content := range images {
		s.send(http.MethodPut, path+"/blobs/"+d.String(), content)
	}
	s.send(http.MethodPost, path+"/publish", nil)
	end()
	raw, err := json.Marshal(carry.ExportRequest{Images: []string{"registry.test/team/app:1"}})
	if err != nil {
		t.Fatal(err)
	}
	id, leave := s.open("exports", raw)
	defer leave()
	if _, err := s.store.Remove(cache.Repository{Upstream: "registry.test", Name: "team/app"}, "1"); err != nil {
		t.Fatal(err)
	}
	for d, content := range images {
		status, body := s.send(http.MethodGet, "exports/"+id+"/blobs/"+d.String(), nil)
		if whole := status == http.StatusOK && body == string(content); !whole && status != http.StatusNotFound {
			t.Errorf("%s: %d %.100s", d, status, body)
		}
	}
	for name, d := range map[string]string{
		"a path": "..%2f..%2fetc%2fpasswd", "a blob that is not here": digest.FromString("none").String(),
		"an unknown algorithm": "md5:0", "a zero byte": "sha256:%00",
	} {
		status, body := s.send(http.MethodGet, "exports/"+id+"/blobs/"+d, nil)
		s.wantRefused(name, status, body, "error")
	}
}
