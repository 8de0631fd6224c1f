package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Images that nobody has pulled are fetched, and carried with what refers to them.
func TestExportFetchesAnImageAndItsReferrers(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	bundle := filepath.Join(t.TempDir(), "bundle.tar")
	output(t, environ(t), s.binary, "export", "--config", s.config, "-o", bundle, "--platform", "all", "--referrers", s.ecr.image())
	s.ecr.kill()
	again := filepath.Join(t.TempDir(), "again.tar")
	output(t, environ(t), s.binary, "export", "--config", s.config, "-o", again, "--platform", "all", "--referrers", s.ecr.image())
	requireSameFile(t, bundle, again)
	s.stopLarder(t)
	output(t, environ(t), s.binary, "export", "--config", s.config, "-o", again, "--platform", "all", "--referrers", s.ecr.image())
	requireSameFile(t, bundle, again)

	site := newSite(t, s.ecr.Host)
	site.startLarder(t)
	if got := site.imported(t, bundle); got[s.ecr.image()] != s.ecr.Image.Root.Digest {
		t.Errorf("%v", got)
	}
	site.pullPlatforms(t, imageRepository, imageTag)
	artifact := s.ecr.Image.Artifact
	subject := s.ecr.Image.Root.Digest
	list := site.referrersOf(t, imageRepository, subject)
	if len(list) != 1 || list[0] != artifact.Digest {
		t.Errorf("referrers of %s: %v, want %s", subject, list, artifact.Digest)
	}
	requirePull(t, site.newPullers(t, 1), imageRepository, artifact.Digest.String(), artifact.Digest)
}

// referrersOf lists the referrers of a manifest, through Larder.
func (s *stack) referrersOf(t *testing.T, repository string, subject digest.Digest) []digest.Digest {
	t.Helper()
	resp, err := s.newPuller(t).get(t.Context(), repository+"/referrers/"+subject.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var index ocispec.Index
	if err := json.NewDecoder(resp.Body).Decode(&index); err != nil {
		t.Fatal(err)
	}
	var all []digest.Digest
	for _, m := range index.Manifests {
		all = append(all, m.Digest)
	}
	return all
}

// Signatures that were carried with an image verify at the site, and with the right key only.
func TestCarriedSignaturesVerify(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		api  bool
	}{{"referrers API", true}, {"tags", false}} {
		for _, s := range []signer{
			{"cosign", cosign()},
			{"cosign with its older tags", cosign("--new-bundle-format=false", "--registry-referrers-mode=legacy")},
			{"notation", notation},
		} {
			t.Run(kind.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				upstream := httptest.NewServer(registry.New(registry.WithReferrersSupport(kind.api), registry.Logger(log.New(io.Discard, "", 0))))
				t.Cleanup(upstream.Close)
				host := strings.TrimPrefix(upstream.URL, "http://")
				image := randomImage(t)
				writeImage(t, host+"/team/app:1.0", image)
				d, err := image.Digest()
				if err != nil {
					t.Fatal(err)
				}
				by := s.sign(t, host+"/team/app@"+d.String())
				from := newStack(t, fmt.Sprintf("upstreams: [{host: %s, endpoint: %q}]\n", clientsUpstream, upstream.URL))
				from.startLarder(t)
				bundle := filepath.Join(t.TempDir(), "bundle.tar")
				output(t, environ(t), from.binary, "export", "--config", from.config, "-o", bundle, "--referrers", clientsUpstream+"/team/app:1.0")
				upstream.Close()
				site := newSite(t, clientsUpstream)
				site.startLarder(t)
				site.imported(t, bundle)
				through := site.listen + "/" + clientsUpstream + "/team/app:1.0"
				if err := by.verify(t, through); err != nil {
					t.Error(err)
				}
				if err := by.wrong(t, through); err == nil {
					t.Error("it verifies with another key")
				}
			})
		}
	}
}
