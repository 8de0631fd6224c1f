package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// ECR Public answers 401 to each HEAD of a blob and 400 to an expired token, and allows one
// pull per second.
func TestPullsFromECRPublicWorkAndKeepItsLimit(t *testing.T) {
	t.Parallel()
	for name, anonymous := range map[string]bool{"anonymously": true, "with credentials": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, settings{public: true})
			if anonymous {
				r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Code: "AccessDeniedException"})
			}
			var images []*ecrtest.Added
			for i := range 4 {
				images = append(images, r.addImage(fmt.Sprint("v", i), ecrtest.Random(uint64(i), 100_000)))
			}
			clients, ctx := errgroup.WithContext(t.Context())
			for i := range 3 {
				clients.Go(func() error { return r.pull(ctx, fmt.Sprint("v", i)) })
			}
			if err := clients.Wait(); err != nil {
				t.Fatal(err)
			}
			r.ecr.ExpireTokens()
			if err := r.pull(t.Context(), "v3"); err != nil {
				t.Errorf("with a token that has expired: %v", err)
			}
			for _, image := range images {
				a := r.head(blobPath(app, image.Blobs[0].Digest))
				wantStatus(t, a, http.StatusOK)
				wantHeader(t, a, "Content-Length", "100000")
			}
			stats := r.ecr.Stats()
			if stats.Exceeded > 0 {
				t.Errorf("%d of %d requests for manifests exceeded the limit", stats.Exceeded, stats.Requests[ecrtest.Manifest])
			}
			if n := stats.Heads[ecrtest.Blob]; n > 0 {
				t.Errorf("%d HEAD of blobs were sent upstream", n)
			}
		})
	}
}
