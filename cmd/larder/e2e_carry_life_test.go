package main

import (
	"archive/tar"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/opencontainers/go-digest"
)

// A site without a link is supplied as deploy/OPERATIONS.md says: keys, the first disk in parts, a delta each month, one
// that is lost, a link that goes one way, other keys, and an image that must go at once.
func TestLifeOfASiteWithoutALink(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(upstream.Close)
	host := strings.TrimPrefix(upstream.URL, "http://")
	images := map[string]v1.Image{"a": randomImage(t), "b": randomImage(t), "c": randomImage(t)}
	added := randomImage(t)
	fresh := layersOf(t, added)[:1]
	images["d"] = withLayers(t, images["b"], fresh...)
	for tag, image := range images {
		writeImage(t, host+"/team/app:"+tag, image)
	}
	named := func(tag string) string { return clientsUpstream + "/team/app:" + tag }
	home := newStack(t, fmt.Sprintf("upstreams: [{host: %s, endpoint: %q}]\n", clientsUpstream, upstream.URL))
	home.startLarder(t)
	dir := t.TempDir()
	key, pub := writeKeys(t, dir, "fleet")
	site := newSite(t, clientsUpstream)
	require := site.requireSignatures(t, pub)
	site.startLarder(t)
	serves := func(tags ...string) {
		t.Helper()
		for tag, image := range images {
			want, err := image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			m, err := site.newPuller(t).manifest(t.Context(), "team/app", tag)
			if isHere := err == nil && digest.FromBytes(m).String() == want.String(); isHere != slices.Contains(tags, tag) {
				t.Errorf("%s is served: %t, %v", tag, isHere, err)
			}
		}
	}
	export := func(file string, args ...string) {
		t.Helper()
		output(t, environ(t), home.binary, append([]string{"export", "--config", home.config, "-o", file}, args...)...)
	}

	first := filepath.Join(dir, "first.tar")
	export(first, "--split", "3MB", "--sign", key, named("a"), named("b"), named("c"))
	parts, err := filepath.Glob(filepath.Join(dir, "first.*.tar"))
	if err != nil || len(parts) < 2 {
		t.Fatalf("parts: %v, %v", parts, err)
	}
	for i := range parts {
		output(t, environ(t), site.binary, "import", "--config", site.config, parts[len(parts)-1-i])
	}
	serves("a", "b", "c")

	inventory, delta := filepath.Join(dir, "site.json"), filepath.Join(dir, "delta.tar")
	output(t, environ(t), site.binary, "inventory", "--config", site.config, "-o", inventory)
	for range 2 { // the first one is lost
		if err := os.Remove(delta); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		export(delta, "--missing-from", inventory, "--sign", key, named("b"), named("c"), named("d"))
		if got, want := blobsOfTar(t, delta), ownBlobs(t, images["d"], fresh); !slices.Equal(got, want) {
			t.Errorf("the delta has the blobs\n%v, want those that only the new image has\n%v", got, want)
		}
	}
	if got := site.imported(t, delta, "--replace"); len(got) != 3 {
		t.Errorf("imported %v", got)
	}
	serves("a", "b", "c", "d") // a is not pinned any more
	if pins := output(t, environ(t), site.binary, "ls", "--config", site.config, named("a")); strings.Contains(pins, "pinned") {
		t.Errorf("the image that the delta does not have:\n%s", pins)
	}

	site.stopLarder(t)
	other, otherPub := writeKeys(t, dir, "next")
	require(pub, otherPub)
	site.startLarder(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sending, receiving := home.command(t, "export", "-o", "-", "--sign", other, named("b"), named("d")), site.command(t, "import", "--replace", "-")
	sending.Stdout, receiving.Stdin = writer, reader
	err = errors.Join(sending.Start(), receiving.Start(), writer.Close(), reader.Close())
	if err = errors.Join(err, sending.Wait(), receiving.Wait()); err != nil {
		t.Errorf("over a link that goes one way: %v", err)
	}
	site.stopLarder(t)
	require(otherPub)
	site.startLarder(t)
	if _, err := tryRun(t, environ(t), site.binary, "import", "--config", site.config, delta); err == nil || !strings.Contains(err.Error(), "by none of the keys") {
		t.Errorf("a bundle that is signed by the key before: %v", err)
	}

	output(t, environ(t), site.binary, "unpin", "--config", site.config, named("d"))
	output(t, environ(t), site.binary, "rm", "--config", site.config, named("d"))
	serves("a", "b", "c")
	for _, file := range site.blobFiles(t) {
		if slices.Contains(ownBlobs(t, images["d"], fresh), "sha256:"+filepath.Base(file)) {
			t.Errorf("%s, which only the removed image has, is still there", file)
		}
	}
	site.stopAndCheck(t)
}

// requireSignatures returns a function that has a site, from its next start on, require the signature of one of these
// keys, and calls it.
func (s *stack) requireSignatures(t *testing.T, pub string) (require func(pubs ...string)) {
	t.Helper()
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	require = func(pubs ...string) {
		writeFile(t, s.config, string(raw)+"import: {verify: ["+strings.Join(pubs, ", ")+"]}\n")
	}
	require(pub)
	return require
}

// writeKeys writes a private key and its public one into files of a folder.
func writeKeys(t *testing.T, dir, name string) (key, pub string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key, pub = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	writeFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	writeFile(t, pub, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	return key, pub
}

func layersOf(t *testing.T, image v1.Image) []v1.Layer {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

// withLayers returns an image with more layers.
func withLayers(t *testing.T, image v1.Image, layers ...v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// ownBlobs returns the digests of an image's manifest, its configuration and these layers, sorted.
func ownBlobs(t *testing.T, image v1.Image, layers []v1.Layer) []string {
	t.Helper()
	manifest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{manifest.String(), config.String()}
	for _, layer := range layers {
		d, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d.String())
	}
	slices.Sort(all)
	return all
}

// blobsOfTar returns the digests of the blobs in a bundle, sorted.
func blobsOfTar(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []string
	for entries := tar.NewReader(f); ; {
		h, err := entries.Next()
		if err == io.EOF {
			slices.Sort(all)
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hex != "" {
			all = append(all, "sha256:"+hex)
		}
	}
}
