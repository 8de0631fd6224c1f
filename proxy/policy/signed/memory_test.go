package signed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/signed"
)

const (
	host       = "registry.example"
	repository = "team/app"
)

// stored is a manifest in a file.
type stored struct {
	MediaType string `json:"mediaType"`
	Raw       []byte `json:"raw"`
}

// memory is the content of a repository. Its exported fields are written to a file.
type memory struct {
	Manifests map[string]stored                      `json:"manifests"` // by tag and digest
	Blobs     map[digest.Digest][]byte               `json:"blobs"`
	Refers    map[digest.Digest][]ocispec.Descriptor `json:"referrers"` // by subject
	fail      func(what string) error                // nil for none; what is "referrers", "blob", or the reference of a manifest
	asked     atomic.Int32
	block     func(ctx context.Context, what string) error // nil for none
}

func newMemory() *memory {
	return &memory{
		Manifests: make(map[string]stored), Blobs: make(map[digest.Digest][]byte), Refers: make(map[digest.Digest][]ocispec.Descriptor),
	}
}

func (m *memory) failure(ctx context.Context, what string) error {
	m.asked.Add(1)
	if m.block != nil {
		if err := m.block(ctx, what); err != nil {
			return err
		}
	}
	if m.fail != nil {
		return m.fail(what)
	}
	return nil
}

// Referrers is for signed.Content.
func (m *memory) Referrers(ctx context.Context, image policy.Image) ([]ocispec.Descriptor, error) {
	if err := m.failure(ctx, "referrers"); err != nil {
		return nil, err
	}
	return m.Refers[image.Digest], nil
}

// Manifest is for signed.Content.
func (m *memory) Manifest(ctx context.Context, _ policy.Image, reference string) (ocispec.Descriptor, []byte, error) {
	if err := m.failure(ctx, reference); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	found, ok := m.Manifests[reference]
	if !ok {
		return ocispec.Descriptor{}, nil, fmt.Errorf("manifest %s: %w", reference, fs.ErrNotExist)
	}
	return ocispec.Descriptor{MediaType: found.MediaType, Digest: digest.FromBytes(found.Raw), Size: int64(len(found.Raw))}, found.Raw, nil
}

// Blob is for signed.Content.
func (m *memory) Blob(ctx context.Context, _ policy.Image, dgst digest.Digest) ([]byte, error) {
	if err := m.failure(ctx, "blob"); err != nil {
		return nil, err
	}
	found, ok := m.Blobs[dgst]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", dgst, fs.ErrNotExist)
	}
	return found, nil
}

// add adds a manifest, below a tag unless that is empty, and to the referrers of its subject.
func (m *memory) add(t *testing.T, tag string, manifest ocispec.Manifest) ocispec.Descriptor {
	t.Helper()
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return m.addRaw(t, tag, ocispec.MediaTypeImageManifest, raw)
}

func (m *memory) addRaw(t *testing.T, tag, mediaType string, raw []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	m.Manifests[d.Digest.String()] = stored{mediaType, raw}
	if tag != "" {
		m.Manifests[tag] = stored{mediaType, raw}
	}
	var parsed ocispec.Manifest
	if err := json.Unmarshal(raw, &parsed); err != nil {
		t.Fatal(err)
	}
	if parsed.Subject != nil {
		d.ArtifactType = parsed.ArtifactType
		if d.ArtifactType == "" {
			d.ArtifactType = parsed.Config.MediaType
		}
		m.Refers[parsed.Subject.Digest] = append(m.Refers[parsed.Subject.Digest], d)
	}
	return d
}

// addBlob adds a blob.
func (m *memory) addBlob(mediaType string, raw []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	m.Blobs[d.Digest] = raw
	return d
}

// addImage adds an image whose content is its name.
func (m *memory) addImage(t *testing.T, name string) policy.Image {
	t.Helper()
	config := m.addBlob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","author":"`+name+`"}`))
	layer := m.addBlob(ocispec.MediaTypeImageLayer, []byte(name))
	d := m.add(t, name, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
	return imageOf(d)
}

func imageOf(d ocispec.Descriptor) policy.Image {
	return policy.Image{Host: host, Repository: repository, Digest: d.Digest, MediaType: d.MediaType}
}

// image returns the image below a tag.
func (m *memory) image(t *testing.T, tag string) policy.Image {
	t.Helper()
	found, ok := m.Manifests[tag]
	if !ok {
		t.Fatalf("there is no image %s", tag)
	}
	return imageOf(ocispec.Descriptor{MediaType: found.MediaType, Digest: digest.FromBytes(found.Raw)})
}

// push writes everything to a registry.
func (m *memory) push(t *testing.T, registry string) {
	t.Helper()
	for dgst, raw := range m.Blobs {
		answered(t, http.MethodPost, registry+"/v2/"+repository+"/blobs/uploads/?digest="+dgst.String(), "application/octet-stream", raw)
	}
	for reference, manifest := range m.Manifests {
		answered(t, http.MethodPut, registry+"/v2/"+repository+"/manifests/"+reference, manifest.MediaType, manifest.Raw)
	}
}

// pull reads an image's signatures from a registry.
func (m *memory) pull(t *testing.T, registry string, image policy.Image) {
	t.Helper()
	list := answered(t, http.MethodGet, registry+"/v2/"+repository+"/referrers/"+image.Digest.String(), "", nil)
	var index ocispec.Index
	if err := json.Unmarshal(list, &index); err != nil {
		t.Fatal(err)
	}
	m.Refers[image.Digest] = index.Manifests
	for _, d := range index.Manifests {
		m.pullManifest(t, registry, d.Digest.String())
	}
	m.pullManifest(t, registry, strings.Replace(image.Digest.String(), ":", "-", 1)+".sig")
}

// pullManifest reads a manifest with its layers, if there is one.
func (m *memory) pullManifest(t *testing.T, registry, reference string) {
	t.Helper()
	raw := answered(t, http.MethodGet, registry+"/v2/"+repository+"/manifests/"+reference, "", nil)
	if raw == nil {
		return
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	m.Manifests[reference] = stored{ocispec.MediaTypeImageManifest, raw}
	m.Manifests[digest.FromBytes(raw).String()] = m.Manifests[reference]
	for _, layer := range manifest.Layers {
		m.Blobs[layer.Digest] = answered(t, http.MethodGet, registry+"/v2/"+repository+"/blobs/"+layer.Digest.String(), "", nil)
	}
}

// answered sends a request to a registry, and returns the body, or nil for 404.
func answered(t *testing.T, method, url, mediaType string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil
	case resp.StatusCode >= 300:
		t.Fatalf("%s %s: %s %s", method, url, resp.Status, raw)
	}
	return raw
}

// newCondition returns a condition.
func newCondition(t *testing.T, opts signed.Options) *signed.Condition {
	t.Helper()
	c, err := signed.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
