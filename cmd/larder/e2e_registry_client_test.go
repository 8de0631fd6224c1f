package main

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// An addressForm is one of the ways in which a client names the upstream.
type addressForm struct {
	name       string
	repository func(*stack) string
	transport  func(*stack, http.RoundTripper) http.RoundTripper
}

func addressForms() []addressForm {
	plain := func(*stack) string { return imageRepository }
	unchanged := func(_ *stack, base http.RoundTripper) http.RoundTripper { return base }
	return []addressForm{
		{"path prefix", prefixed, unchanged},
		{"ns", plain, func(s *stack, base http.RoundTripper) http.RoundTripper {
			return nsTransport{base: base, host: s.ecr.Host}
		}},
		{"default upstream", plain, unchanged},
	}
}

// prefixed is the repository with the upstream's host before it.
func prefixed(s *stack) string { return s.ecr.Host + "/" + imageRepository }

// An nsTransport names the upstream in every request as containerd does.
type nsTransport struct {
	base http.RoundTripper
	host string
}

func (n nsTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	query := req.URL.Query()
	query.Set("ns", n.host)
	req.URL.RawQuery = query.Encode()
	return n.base.RoundTrip(req)
}

func TestGoContainerRegistryPullsByEveryAddressForm(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	everything := []string{"linux/amd64", "linux/arm64"}
	pulledThroughDeadUpstream(t, s, everything, func(t *testing.T) {
		for _, form := range addressForms() {
			t.Run(form.name, func(t *testing.T) { s.pullIndex(t, form) })
		}
	})
}

// pullIndex pulls the image for all platforms, by tag and through one form of address, and checks every digest,
// size and media type on the way.
func (s *stack) pullIndex(t *testing.T, form addressForm) {
	t.Helper()
	options := remoteOptions(t, form.transport(s, transport(t)))
	tag := s.parse(t, form.repository(s)+":"+imageTag)
	index, err := remote.Index(tag, options...)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(manifests.Manifests), len(s.ecr.Image.Manifests); got != want {
		t.Fatalf("the index has %d manifests, want %d", got, want)
	}
	for _, desc := range manifests.Manifests {
		image, err := index.Image(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		requireWhole(t, image)
	}
	head, err := remote.Head(tag, options...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := head.Digest.String(), s.ecr.Image.Root.Digest.String(); got != want {
		t.Errorf("the tag leads to %s, want %s", got, want)
	}
}

func TestArtifactIsFoundThroughItsSubjectAndCached(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	options := remoteOptions(t, transport(t))
	subject, ok := s.parse(t, prefixed(s)+"@"+s.ecr.Image.Root.Digest.String()).(name.Digest)
	if !ok {
		t.Fatal("the subject is not named by digest")
	}
	referrers, err := remote.Referrers(subject, options...)
	if err != nil {
		t.Fatal(err)
	}
	list, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	want := s.ecr.Image.Artifact.Digest.String()
	if len(list.Manifests) != 1 || list.Manifests[0].Digest.String() != want {
		t.Fatalf("the referrers are %v, want %s alone", list.Manifests, want)
	}

	artifact := s.parse(t, prefixed(s)+"@"+want)
	if _, err := remote.Get(artifact, options...); err != nil {
		t.Fatal(err)
	}
	s.ecr.kill()
	if _, err := remote.Get(artifact, options...); err != nil {
		t.Errorf("with the upstream dead: %v", err)
	}
}

// requireWhole reads all of an image. The library checks every digest and size. Its own validation would also unpack the
// layers, and assumes that all of them are gzip.
func requireWhole(t *testing.T, image v1.Image) {
	t.Helper()
	if _, err := image.RawConfigFile(); err != nil {
		t.Error(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) < 2 {
		t.Fatalf("the image has only %d layers", len(layers))
	}
	for _, layer := range layers {
		if err := readLayer(layer); err != nil {
			t.Error(err)
		}
	}
}

func readLayer(layer v1.Layer) error {
	content, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	want, err := layer.Size()
	if err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, content)
	if err == nil && got != want {
		err = fmt.Errorf("a layer has %d bytes, want %d", got, want)
	}
	return err
}

// remoteImage returns the image for a platform. Its content is read through Larder when it is used.
func (s *stack) remoteImage(t *testing.T, platform string) v1.Image {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	options := append(remoteOptions(t, transport(t)), remote.WithPlatform(*p))
	image, err := remote.Image(s.parse(t, prefixed(s)+":"+imageTag), options...)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// parse returns a reference to a repository at Larder, by tag or digest.
func (s *stack) parse(t *testing.T, reference string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(s.listen+"/"+reference, name.Insecure) // of all loopback addresses, the library knows one
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// remoteOptions keep the library from trying again, so that a failure shows.
func remoteOptions(t *testing.T, rt http.RoundTripper) []remote.Option {
	t.Helper()
	return []remote.Option{
		remote.WithContext(t.Context()),
		remote.WithTransport(rt),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	}
}

// transport returns a transport whose connections end with the test.
func transport(t testing.TB) *http.Transport {
	t.Helper()
	rt := &http.Transport{}
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}
