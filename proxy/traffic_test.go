package proxy_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestTrafficCountsResponsesByTheirResult(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 10_000))
	if err := r.pull(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	r.meter.wait("larder.fills", 2)
	hit := r.get(blobPath(app, image.Blobs[0].Digest))
	wantHeader(t, hit, "X-Cache", "HIT")
	r.get(manifestPath(app, "v2")) // the text of its error does not count
	ping := r.get("/v2/")
	r.server.Close() // a response is counted when it is over
	sent := image.Root.Size + int64(len(hit.body)+len(ping.body))
	for _, blob := range image.Blobs {
		sent += blob.Size
	}
	want := proxy.Traffic{Requests: proxy.Requests{Hit: 1, Miss: int64(1 + len(image.Blobs)), Failed: 1}, Served: sent}
	got := r.proxy.Traffic()
	if len(got.Runtimes) != 1 || got.Runtimes[0].Name != "other" {
		t.Errorf("runtimes: %+v, want an other one", got.Runtimes)
	}
	got.Runtimes = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("traffic (-want +got):\n%s", diff)
	}
}

func TestTrafficTellsWhenEachRuntimeAsked(t *testing.T) {
	r := newRig(t, settings{})
	before := time.Now().Add(-time.Millisecond)
	for _, agent := range []string{
		"containerd/v1.6.20", "containerd/2.1.4", "docker/28.2.2 go/go1.23 os/linux UpstreamClient(Docker-Client/28.2.2)",
		"libpod/4.3.1", "containers/5.36.0 (github.com/containers/image)", "cri-o/1.31", "buildkit/v0.13", "curl/7.88.1", "",
	} {
		if a := r.try(r.request(http.MethodGet, manifestPath(app, "v1"), "User-Agent", agent)); a.err != nil {
			t.Fatal(a.err)
		}
	}
	r.get("/v2/") // asks for no content
	r.server.Close()
	var names []string
	for _, one := range r.proxy.Traffic().Runtimes {
		names = append(names, one.Name)
		if one.Last.Before(before) || one.Last.After(time.Now()) {
			t.Errorf("%s asked at %v", one.Name, one.Last)
		}
	}
	if want := []string{"containerd", "docker", "podman", "cri-o", "buildkit", "other"}; !slices.Equal(names, want) {
		t.Errorf("runtimes: %q, want %q", names, want)
	}
}

func TestFillsNameTheClientsThatWait(t *testing.T) {
	r := newRig(t, settings{})
	blob := r.addBlob(app, ecrtest.Random(1, 100_000))
	asked := make(chan struct{}, 1)
	heal := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Digest: blob.Digest, Hang: true, Times: 1, Notify: func() { asked <- struct{}{} }})
	pulled := make(chan answer, 1)
	req := r.request(http.MethodGet, blobPath(app, blob.Digest), "User-Agent", "containerd/2.1.4 linux")
	go func() { pulled <- r.try(req) }()
	<-asked
	fills := r.proxy.Fills()
	if len(fills) != 1 {
		t.Fatalf("fills: %+v", fills)
	}
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: app}
	if got := fills[0]; got.Digest != blob.Digest || len(got.Clients) != 1 || got.Clients[0].Agent != "containerd/2.1.4" ||
		len(got.Repositories) != 1 || got.Repositories[0] != repo.String() {
		t.Errorf("fill: %+v", got)
	}
	heal()
	if a := <-pulled; a.err != nil || a.StatusCode != http.StatusOK {
		t.Errorf("pull: %v", a.err)
	}
}
