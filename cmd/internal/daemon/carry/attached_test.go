package carry_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring/bringtest"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
)

// exported exports an image, and returns what the session has.
func exported(t *testing.T, api *carry.API, req carry.ExportRequest) carry.ExportReport {
	t.Helper()
	mux := http.NewServeMux()
	api.AddTo(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	raw, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Post(server.URL+"/api/v1/exports", "application/json", strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // ends the session
	for lines := json.NewDecoder(resp.Body); ; {
		var report carry.ExportReport
		if err := lines.Decode(&report); err != nil {
			t.Fatal(err)
		}
		if report.Progress == nil {
			return report
		}
	}
}

// The error tells which blob is missing, and nothing of where the cache is.
func TestExportOfAnImageWithoutItsManifestNamesTheDigestAndNoPath(t *testing.T) {
	s := bringtest.New(t, cache.Options{})
	added := s.AddImage("v1", "a", 1000, "linux/amd64", "linux/arm64")
	if _, err := s.Pull("v1", 0); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{added.Manifests[0].Digest, added.Root.Digest} {
		if err := os.Remove(filepath.Join(s.Dir, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())); err != nil {
			t.Fatal(err)
		}
		for _, platforms := range [][]string{nil, {"linux/amd64"}} {
			report := exported(t, carry.New(carry.Options{Store: s.Store}), carry.ExportRequest{Images: []string{bringtest.Name("v1").String()}, Platforms: platforms})
			if !strings.Contains(report.Error, added.Root.Digest.String()) && !strings.Contains(report.Error, d.String()) || strings.Contains(report.Error, s.Dir) {
				t.Errorf("platforms %v: %q", platforms, report.Error)
			}
		}
	}
}

// Clients that pull by platform fetch no attestation, and no index of SOCI. An export of what they
// pulled leaves these out, says so, and has them with the referrers.
func TestExportLeavesOutAttestationsThatAreNotCached(t *testing.T) {
	s := bringtest.New(t, cache.Options{})
	added := s.AddImage("v1", "a", 1000, "linux/amd64", "linux/arm/v6")
	attach := func(text, annotation string, to ocispec.Descriptor) ocispec.Descriptor {
		d := s.AddImage("unused", text, 1000, "linux/amd64").Root
		d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		d.Annotations = map[string]string{annotation: to.Digest.String()}
		return d
	}
	amd64, arm := added.Manifests[0], added.Manifests[1]
	attestation := attach("attestation", "vnd.docker.reference.digest", amd64)
	soci := attach("soci", "com.amazon.soci.image-manifest-digest", arm)
	s.Tag("v1", s.AddIndex(amd64, arm, attestation, soci).Digest)

	bringer := bring.New(s.Proxy, s.Store, slog.New(slog.DiscardHandler))
	alone := carry.Options{Store: s.Store, Log: slog.New(slog.DiscardHandler)}
	daemon := alone
	daemon.Bringer, daemon.FetchReferrers = bringer, s.Proxy.FetchReferrers
	platforms, err := bring.ParsePlatforms([]string{"linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if got := bringer.Bring(t.Context(), []bring.Image{{Image: bringtest.Name("v1"), Platforms: platforms}}, nil)[0]; got.Err != nil {
		t.Fatal(got.Err)
	}
	image := bringtest.Name("v1").String()
	for _, step := range []struct {
		name string
		opts carry.Options
		req  carry.ExportRequest
		left []digest.Digest
		err  string
	}{
		{"what is whole, no daemon", alone, carry.ExportRequest{}, []digest.Digest{arm.Digest, attestation.Digest, soci.Digest}, ""},
		{"a platform, no daemon", alone, carry.ExportRequest{Platforms: []string{"linux/amd64"}}, []digest.Digest{arm.Digest, attestation.Digest, soci.Digest}, ""},
		{"referrers, no daemon", alone, carry.ExportRequest{Referrers: true}, []digest.Digest{arm.Digest, attestation.Digest, soci.Digest}, ""},
		{"all, no daemon", alone, carry.ExportRequest{Platforms: []string{bring.All}}, nil, "not whole in the cache"},
		{"a platform that does not exist", daemon, carry.ExportRequest{Platforms: []string{"linux/s390x"}}, nil, "it has linux/amd64, linux/arm/v6"},
		{"a newer variant runs the older one", daemon, carry.ExportRequest{Platforms: []string{"linux/arm/v7"}}, []digest.Digest{amd64.Digest, attestation.Digest, soci.Digest}, ""},
		{"all", daemon, carry.ExportRequest{Platforms: []string{bring.All}}, []digest.Digest{attestation.Digest, soci.Digest}, ""},
		{"a platform with its referrers", daemon, carry.ExportRequest{Platforms: []string{"linux/amd64"}, Referrers: true}, []digest.Digest{arm.Digest, soci.Digest}, ""},
		{"what is cached of them by now", daemon, carry.ExportRequest{Platforms: []string{bring.All}}, []digest.Digest{soci.Digest}, ""},
		{"all with their referrers", daemon, carry.ExportRequest{Platforms: []string{bring.All}, Referrers: true}, nil, ""},
	} {
		step.req.Images = []string{image}
		got := exported(t, carry.New(step.opts), step.req)
		switch {
		case step.err != "" || got.Error != "":
			if step.err == "" || !strings.Contains(got.Error, step.err) {
				t.Errorf("%s: error %q, want %q", step.name, got.Error, step.err)
			}
		case len(got.Images) != 1 || !slices.Equal(got.Images[0].LeftOut, step.left):
			t.Errorf("%s: %+v, want %v left out", step.name, got.Images, step.left)
		}
	}
}
