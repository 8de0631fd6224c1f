package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestSkopeoCopiesAnIndex(t *testing.T) {
	t.Parallel()
	skopeo := deploytest.Require(t, "skopeo")
	s := startStack(t)
	everything := []string{"linux/amd64", "linux/arm64"}
	pulledThroughDeadUpstream(t, s, everything, func(t *testing.T) {
		copied, err := s.skopeoCopy(t, skopeo)
		if err != nil {
			t.Fatal(err)
		}
		s.requireBlobs(t, copied, everything)
	})
}

func TestSkopeoGetsNoBlobWithAWrongBit(t *testing.T) {
	t.Parallel()
	skopeo := deploytest.Require(t, "skopeo")
	s := startStack(t)
	layer := s.ecr.largestBlob()
	s.ecr.flipBit(t, layer)
	if copied, err := s.skopeoCopy(t, skopeo); err == nil {
		t.Errorf("skopeo copied an image with a wrong bit in %s to %s and saw nothing", layer, copied)
	}
	s.ecr.mend(t)
	copied, err := s.skopeoCopy(t, skopeo)
	if err != nil {
		t.Fatalf("after the upstream sent the right bytes: %v", err)
	}
	s.requireBlobs(t, copied, []string{"linux/amd64", "linux/arm64"})
}

// skopeoCopy copies the image with all its platforms into a new folder.
func (s *stack) skopeoCopy(t *testing.T, skopeo string) (dir string, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "image")
	_, err = tryRun(t, environ(t), skopeo,
		"--registries-conf", s.registriesConf(t),
		"--policy", signaturePolicy(t),
		"copy", "--all", "docker://"+s.ecr.image(), "dir:"+dir)
	return dir, err
}

// requireBlobs fails the test unless skopeo's folder holds each of the image's blobs, with the bytes its name promises.
func (s *stack) requireBlobs(t *testing.T, dir string, platforms []string) {
	t.Helper()
	for _, blob := range s.ecr.Image.Blobs {
		if err := verifyFile(filepath.Join(dir, blob.Digest.Encoded()), blob.Digest); err != nil {
			t.Error(err)
		}
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "*.manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(manifests) != len(platforms) {
		t.Errorf("skopeo copied the manifests %s, want %d", strings.Join(manifests, " "), len(platforms))
	}
}

func verifyFile(path string, want digest.Digest) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	verifier := want.Verifier()
	if _, err := io.Copy(verifier, file); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("%s does not have the digest that it is named by", path)
	}
	return nil
}
