package admin_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin"
)

// detail asks for the detail of an image.
func (r *rig) detail(image string) (admin.Detail, int) {
	r.t.Helper()
	var d admin.Detail
	w := r.ask(http.MethodGet, "/api/v1/image?image="+url.QueryEscape(image))
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		r.t.Errorf("%s: %v: %s", image, err, w.Body)
	}
	return d, w.Code
}

func TestDetailOfAnImageTellsWhatIsMissing(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	img := newImage(t, 5000)
	r.pull("v1", img)
	name := repo.Image(img.root.String())
	whole, status := r.detail(name)
	if status != http.StatusOK || whole.Digest != img.root || len(whole.Manifests) != 1 {
		t.Fatalf("%d: %+v", status, whole)
	}
	one := whole.Manifests[0]
	if !one.Here || one.Digest != img.root || len(one.Parts) != 2 || !one.Parts[0].Config || one.Parts[1].Config || one.Parts[1].Digest != img.layer || one.Parts[1].Size != 5000 {
		t.Errorf("%+v", one)
	}
	for _, part := range one.Parts {
		if !part.Here {
			t.Errorf("%+v is missing", part)
		}
	}
	r.stop()
	if err := os.Remove(filepath.Join(r.dir, "blobs", "sha256", img.layer.Encoded()[:2], img.layer.Encoded())); err != nil {
		t.Fatal(err)
	}
	r.start()
	<-r.store.Loaded()
	if part, _ := r.detail(name); part.Manifests[0].Parts[1].Here || !part.Manifests[0].Parts[0].Here {
		t.Errorf("without its layer: %+v", part)
	}
}

func TestDetailIsOnlyOfWhatTheRepositoryHas(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	img := newImage(t, 5000)
	r.pull("v1", img)
	for image, want := range map[string]int{
		"registry.test/team/other@" + img.root.String(): http.StatusNotFound,
		"registry.test/team/app@" + img.layer.String():  http.StatusNotFound,
		"registry.test/team/app:v1":                     http.StatusBadRequest,
		"../../etc/passwd":                              http.StatusBadRequest,
		"":                                              http.StatusBadRequest,
	} {
		if _, status := r.detail(image); status != want {
			t.Errorf("%q: %d, want %d", image, status, want)
		}
	}
}

// A look at an image does not keep it from eviction.
func TestDetailIsNoUse(t *testing.T) {
	now := time.Now()
	r := newRig(t, cache.Options{Now: func() time.Time { return now }}, admin.Options{})
	img := newImage(t, 5000)
	r.pull("v1", img)
	used := func() time.Time {
		list, err := r.store.Images()
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		return list[0].Used
	}
	before := used()
	now = now.Add(time.Hour)
	if _, status := r.detail(repo.Image(img.root.String())); status != http.StatusOK || !used().Equal(before) {
		t.Errorf("%d; used at %s, then at %s", status, before, used())
	}
	if _, ok := r.store.ManifestHere(repo, img.root); !ok || !used().After(before) {
		t.Errorf("a client's use does not count: %t, %s", ok, used())
	}
}
