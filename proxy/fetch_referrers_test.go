package proxy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// signedIndex is an image of two platforms in the fake's repository app, with a referrer of the index, one of a platform, and
// cosign's tags of both.
type signedIndex struct {
	*ecrtest.Added
	ofPlatform ocispec.Descriptor // the referrer of the first platform
	tags       map[string]ocispec.Descriptor
}

func (r *rig) addSignedIndex() signedIndex {
	r.t.Helper()
	added, err := r.ecr.AddImage(app, "v1", ecrtest.Image{
		Layers:    []ecrtest.Layer{{Content: ecrtest.Random(1, 10)}},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Artifact:  true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	img := signedIndex{Added: added, tags: make(map[string]ocispec.Descriptor)}
	platform := added.Manifests[0]
	layer := r.addBlob(app, ecrtest.Random(7, 100))
	img.ofPlatform, err = r.ecr.AddManifest(app, "", ocispec.MediaTypeImageManifest, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"artifactType":"a/platform","config":{"mediaType":"c","digest":%q,"size":2},"layers":[{"digest":%q,"size":100}],"subject":{"mediaType":%[1]q,"digest":%[4]q,"size":%[5]d}}`,
		ocispec.MediaTypeImageManifest, digest.FromString("{}"), layer.Digest, platform.Digest, platform.Size))
	if err != nil {
		r.t.Fatal(err)
	}
	for i, tag := range []string{cache.ReferrersTag(added.Root.Digest) + ".sig", cache.ReferrersTag(platform.Digest) + ".att"} {
		img.tags[tag] = r.addImage(tag, ecrtest.Random(uint64(20+i), 100)).Root
	}
	return img
}

// pullPlatform pulls the index and its first platform, as a node does.
func (img signedIndex) pullPlatform(r *rig) cache.Repository {
	r.t.Helper()
	wantStatus(r.t, r.get(manifestPath(app, "v1")), http.StatusOK)
	wantStatus(r.t, r.get(manifestPath(app, img.Manifests[0].Digest.String())), http.StatusOK)
	return cache.Repository{Upstream: r.ecr.Host(), Name: app}
}

// found are referrers by digest, each with the tags by which it was found.
func found(list []proxy.Referrer) map[digest.Digest][]string {
	all := make(map[digest.Digest][]string)
	for _, r := range list {
		all[r.Digest] = append(all[r.Digest], r.Tag)
	}
	return all
}

// wantWhole fails the test unless a manifest and all that it names are served from the cache.
func wantWhole(t *testing.T, r *rig, d digest.Digest) {
	t.Helper()
	a := r.get(manifestPath(app, d.String()))
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "X-Cache", "HIT")
	for _, part := range partsOf(t, a.body) {
		blob := r.get(blobPath(app, part))
		wantStatus(t, blob, http.StatusOK)
		wantHeader(t, blob, "X-Cache", "HIT")
	}
}

func TestFetchedReferrersVerifyWithoutTheUpstream(t *testing.T) {
	for name, old := range map[string]bool{"by the API": false, "by tags": true} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			r := newRig(t, settings{noReferrers: old, cache: cache.Options{Now: clock.now, Tags: fresh}})
			img := r.addSignedIndex()
			repo := img.pullPlatform(r)
			list, err := r.proxy.FetchReferrers(t.Context(), repo, img.Root.Digest)
			if err != nil {
				t.Fatal(err)
			}
			want := map[digest.Digest][]string{img.Artifact.Digest: {""}}
			for tag, d := range img.tags {
				want[d.Digest] = []string{tag}
			}
			if old {
				tag := cache.ReferrersTag(img.Root.Digest)
				want[digest.Digest(r.get(manifestPath(app, tag)).Header.Get("Docker-Content-Digest"))] = []string{tag}
			} else {
				want[img.ofPlatform.Digest] = []string{""}
			}
			if diff := cmp.Diff(want, found(list)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			r.ecr.Stop()
			r.restart()
			clock.advance(time.Minute)
			for _, one := range list {
				if one.Subject != img.Root.Digest && one.Subject != img.Manifests[0].Digest {
					t.Errorf("%s refers to %s", one.Digest, one.Subject)
				}
				wantWhole(t, r, one.Digest)
				if one.Tag != "" {
					wantHeader(t, r.get(manifestPath(app, one.Tag)), "X-Cache", "STALE")
				}
			}
			a := r.get(referrersPath(app, img.Root.Digest))
			wantStatus(t, a, http.StatusOK) // also of the registry without the API: its referrers are here
			listed := referrersOf(t, a.Header, a.body)
			if !slices.ContainsFunc(listed, func(d ocispec.Descriptor) bool { return d.Digest == img.Artifact.Digest }) {
				t.Errorf("the artifact is not listed: %v", listed)
			}
		})
	}
}

func TestReferrersThatCannotBeFetchedAreAnError(t *testing.T) {
	r := newRig(t, settings{timeout: 2 * time.Second})
	img := r.addSignedIndex()
	repo := img.pullPlatform(r)
	throttle := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Referrers, Status: http.StatusTooManyRequests})
	list, err := r.proxy.FetchReferrers(t.Context(), repo, img.Root.Digest)
	if err == nil || errors.Is(err, fs.ErrNotExist) || len(list) > 0 {
		t.Errorf("throttled: %v, %v", list, err)
	}
	throttle()
	release := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Blob, Status: http.StatusNotFound})
	list, err = r.proxy.FetchReferrers(t.Context(), repo, img.Root.Digest)
	if err == nil || len(list) > 0 {
		t.Errorf("without blobs: %v, %v", list, err)
	}
	release()
	release = r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusInternalServerError})
	list, err = r.proxy.FetchReferrers(t.Context(), repo, img.Root.Digest)
	if err == nil {
		t.Errorf("without cosign's tags: %v", list)
	}
	release()
}

func TestImageWithoutReferrersHasNone(t *testing.T) {
	r := newRig(t, settings{noReferrers: true})
	image := r.addImage("v1", ecrtest.Random(1, 10))
	list, err := r.proxy.FetchReferrers(t.Context(), cache.Repository{Upstream: r.ecr.Host(), Name: app}, image.Root.Digest)
	if len(list) > 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := r.proxy.FetchReferrers(t.Context(), cache.Repository{Upstream: "no.example", Name: app}, image.Root.Digest); err == nil {
		t.Error("an upstream that is not configured was asked")
	}
}

func TestFetchedReferrersAreBounded(t *testing.T) {
	upstream := &scripted{host: "one.test", manifests: make(map[string][]byte)}
	add := func(raw []byte) ocispec.Descriptor {
		d := digest.FromBytes(raw)
		upstream.manifests[d.String()] = raw
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(raw))}
	}
	image := add(fmt.Appendf(nil, `{"mediaType":%q,"layers":[]}`, ocispec.MediaTypeImageManifest))
	list := &pages{n: 1000}
	for i := range 1100 {
		list.all = append(list.all, add(fmt.Appendf(nil, `{"mediaType":%q,"layers":[],"annotations":{"n":"%d"}}`, ocispec.MediaTypeImageManifest, i)))
	}
	upstream.list = list.list
	larder := serveScripted(t, cache.Options{}, upstream)
	got, err := larder.FetchReferrers(t.Context(), cache.Repository{Upstream: "one.test", Name: app}, image.Digest)
	if len(got) != 1000 || err == nil {
		t.Errorf("%d referrers, %v", len(got), err)
	}
}

// partsOf are the blobs that a manifest names.
func partsOf(t *testing.T, raw []byte) []digest.Digest {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	var all []digest.Digest
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest != "" {
			all = append(all, d.Digest)
		}
	}
	return all
}
