package proxy_test

import (
	"net/http"
	"testing"

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
	if got := r.proxy.Traffic(); got != want {
		t.Errorf("traffic: %+v, want %+v", got, want)
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
