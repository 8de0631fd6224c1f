package ecrtest_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

func TestManifestIsConvertedByTagAndNeverByDigest(t *testing.T) {
	oci := `{"schemaVersion":2,"config":{"mediaType":"` + ocispec.MediaTypeImageConfig +
		`"},"layers":[{"mediaType":"` + ocispec.MediaTypeImageLayerGzip + `"}]}`
	docker := `{"schemaVersion":2,"mediaType":"` + dockerManifest + `","config":{"mediaType":"` + dockerConfig +
		`"},"layers":[{"mediaType":"` + dockerLayer + `"}]}`
	for name, test := range map[string]struct {
		stored, raw string
		accept      []string
		want        string // the media type of the answer
	}{
		"no Accept":      {ocispec.MediaTypeImageManifest, oci, nil, ocispec.MediaTypeImageManifest},
		"anything":       {ocispec.MediaTypeImageManifest, oci, []string{dockerManifest + ", */*;q=0.1"}, ocispec.MediaTypeImageManifest},
		"both":           {dockerManifest, docker, []string{ocispec.MediaTypeImageManifest, dockerManifest}, dockerManifest},
		"OCI for Docker": {ocispec.MediaTypeImageManifest, oci, []string{dockerManifest + ";q=1, " + dockerList}, dockerManifest},
		"Docker for OCI": {dockerManifest, docker, []string{ocispec.MediaTypeImageManifest}, ocispec.MediaTypeImageManifest},
		"neither":        {dockerManifest, docker, []string{"text/plain"}, dockerManifest},
		"index":          {ocispec.MediaTypeImageIndex, `{"manifests":[]}`, []string{dockerList}, ocispec.MediaTypeImageIndex},
		"not JSON":       {ocispec.MediaTypeImageManifest, `nonsense`, []string{dockerManifest}, ocispec.MediaTypeImageManifest},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := start(t, ecrtest.Options{})
			stored, err := server.AddManifest("team/app", "v1", test.stored, []byte(test.raw))
			if err != nil {
				t.Fatal(err)
			}
			ask := func(method, ref string) answer {
				req := c.request(method, server.Endpoint+"/v2/team/app/manifests/"+ref)
				req.Header["Accept"] = test.accept
				req.SetBasicAuth("AWS", c.password)
				return c.do(req)
			}
			byDigest := ask(http.MethodGet, stored.Digest.String())
			wantBody(t, byDigest, test.raw)
			wantHeader(t, byDigest, "Content-Type", test.stored)

			got := ask(http.MethodGet, "v1")
			wantStatus(t, got, http.StatusOK)
			wantHeader(t, got, "Content-Type", test.want)
			dgst := digest.FromString(got.body).String()
			wantHeader(t, ask(http.MethodHead, "v1"), "Docker-Content-Digest", dgst)
			if test.want == test.stored {
				wantBody(t, got, test.raw)
				return
			}
			wantStatus(t, ask(http.MethodGet, dgst), http.StatusNotFound)
			var doc struct {
				MediaType string
				Config    ocispec.Descriptor
				Layers    []ocispec.Descriptor
			}
			if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
				t.Fatal(err)
			}
			config, layer := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
			if test.want == dockerManifest {
				config, layer = dockerConfig, dockerLayer
			}
			if doc.MediaType != test.want || doc.Config.MediaType != config || doc.Layers[0].MediaType != layer {
				t.Errorf("converted to %s", got.body)
			}
		})
	}
}
