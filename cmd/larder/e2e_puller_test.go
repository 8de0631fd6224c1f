package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// maxManifest bounds what a puller reads of a manifest, in bytes.
const maxManifest = 4 << 20

// A puller is a client that pulls images over HTTP, all blobs of one at the same time, and checks every digest. It never
// tries again, so that a failure shows.
type puller struct {
	client *http.Client
	base   string    // URL of the upstream's repositories at Larder
	seen   io.Writer // gets every byte of every blob too, if not nil; several goroutines write to it
	atOnce int       // how many blobs it pulls at the same time, if not 0
}

// newPuller returns a client with its own connections.
func (s *stack) newPuller(t testing.TB) *puller {
	t.Helper()
	return &puller{
		client: &http.Client{Transport: transport(t)},
		base:   "http://" + s.listen + "/v2/" + s.ecr.Host + "/",
	}
}

// newPullers returns n independent clients.
func (s *stack) newPullers(t *testing.T, n int) []*puller {
	t.Helper()
	pullers := make([]*puller, n)
	for i := range pullers {
		pullers[i] = s.newPuller(t)
	}
	return pullers
}

// pull pulls an image of one platform by tag or digest and returns its digest.
func (p *puller) pull(ctx context.Context, repository, reference string) (digest.Digest, error) {
	raw, err := p.manifest(ctx, repository, reference)
	if err != nil {
		return "", err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return "", fmt.Errorf("manifest %s: %w", reference, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	if p.atOnce > 0 {
		group.SetLimit(p.atOnce)
	}
	for _, blob := range append(manifest.Layers, manifest.Config) {
		group.Go(func() error { return p.blob(ctx, repository, blob.Digest) })
	}
	return digest.FromBytes(raw), group.Wait()
}

func (p *puller) manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	resp, err := p.get(ctx, repository+"/manifests/"+reference)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxManifest))
}

// blob reads a blob to its end and checks it.
func (p *puller) blob(ctx context.Context, repository string, want digest.Digest) error {
	resp, err := p.get(ctx, repository+"/blobs/"+want.String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	verifier := want.Verifier()
	var sink io.Writer = verifier
	if p.seen != nil {
		sink = io.MultiWriter(verifier, p.seen)
	}
	if n, err := io.Copy(sink, resp.Body); err != nil {
		return fmt.Errorf("blob %s after %d bytes: %w", want, n, err)
	}
	if !verifier.Verified() {
		return fmt.Errorf("blob %s: %w", want, errWrongBytes)
	}
	return nil
}

// errWrongBytes is the error for a complete body with another digest, which no client may ever receive.
var errWrongBytes = errors.New("the bytes are not what the digest says")

// get requests content that must exist.
func (p *puller) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
		return nil, fmt.Errorf("GET %s: %s %s", path, resp.Status, said)
	}
	return resp, nil
}

// requirePull fails the test unless every client pulls exactly this image, by tag or digest, at the same time.
func requirePull(t *testing.T, pullers []*puller, repository, reference string, want digest.Digest) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	for _, p := range pullers {
		group.Go(func() error {
			defer p.client.CloseIdleConnections() // also those that were never used, for which a shutdown would wait
			got, err := p.pull(ctx, repository, reference)
			if err == nil && got != want {
				err = fmt.Errorf("%s:%s is %s, want %s", repository, reference, got, want)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
