package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/audit"
)

// pulls answers requests for manifests and blobs.
type pulls struct {
	store   *cache.Store
	memory  memory
	readers readers
	audit   *audit.Log
	judge   *judge

	forPeers bool // see Options
}

// manifest answers GET and HEAD of a manifest by tag or digest.
func (p *pulls) manifest(w *recorder, r *http.Request, t target) error {
	if m, ok := p.cachedManifest(t); ok {
		return p.sendManifest(w, r, t, cache.Hit, m)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.source.Timeout, errSlow)
	defer cancel()
	var m cache.Manifest
	var state cache.State
	var err error
	if t.digest != "" {
		m, state, err = p.store.Manifest(ctx, t.repo, t.digest, p.askManifest(t))
	} else {
		m, state, err = p.store.Tag(ctx, t.repo, t.reference, p.askManifest(t))
	}
	if err != nil {
		w.Header().Set(xCache, string(state))
		return err
	}
	return p.sendManifest(w, r, t, state, m)
}

// cachedManifest returns a manifest that can be served without asking the upstream.
func (p *pulls) cachedManifest(t target) (cache.Manifest, bool) {
	if t.digest != "" {
		return p.store.ManifestHere(t.repo, t.digest)
	}
	return p.store.TagHere(t.repo, t.reference)
}

func (p *pulls) sendManifest(w *recorder, r *http.Request, t target, state cache.State, m cache.Manifest) error {
	if err := p.judge.manifest(p, w, r, t, m); err != nil {
		w.Header().Set(xCache, string(state))
		return err
	}
	if err := p.auditAllowed(w, r, t, state, m.Digest); err != nil {
		return err
	}
	setContent(w.Header(), state, m.MediaType, m.Digest)
	if p.forPeers && t.digest == "" {
		setAge(w.Header(), p.store.TagChecked(t.repo, t.reference))
	}
	sendBytes(w, r, m.Raw)
	return nil
}

// blob answers GET and HEAD of a blob, whole or in ranges.
func (p *pulls) blob(w *recorder, r *http.Request, t target) error {
	if err := p.judge.blob(p, r, t); err != nil {
		return err
	}
	if r.Method == http.MethodGet {
		if blob := p.store.BlobHere(t.repo, t.digest); blob != nil {
			defer blob.Close()
			return p.sendBlob(w, r, t, blob)
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	slow := time.AfterFunc(t.source.Timeout, func() { cancel(errSlow) })
	defer slow.Stop()
	size := int64(-1)
	if !p.forPeers || r.Method == http.MethodHead { // the fetch of a blob for a peer asks the upstream too
		var err error
		if size, err = p.store.Holds(ctx, t.repo, t.digest, askBlob(t)); err != nil {
			return err
		}
	}
	if r.Method == http.MethodHead {
		return p.headBlob(ctx, w, r, t, size)
	}
	defer p.readers.add(t, r.UserAgent())()
	blob, err := p.store.Open(ctx, t.digest, p.source(t, size))
	if err != nil {
		return err
	}
	defer blob.Close()
	defer cancel(nil) // before Close, which waits for a read in progress
	if off, n := firstSpan(r, blob.Size); n > 0 {
		if err := blob.Begin(off, n); err != nil {
			return err
		}
	}
	if !slow.Stop() {
		return errSlow // the blob was opened as the time ended
	}
	return p.sendBlob(w, r, t, blob)
}

// open opens the blob of a target that no client waits for by itself.
func (p *pulls) open(ctx context.Context, t target) (*cache.Blob, error) {
	size, err := p.store.Holds(ctx, t.repo, t.digest, askBlob(t))
	if err != nil {
		return nil, err
	}
	return p.store.Open(ctx, t.digest, p.source(t, size))
}

func (p *pulls) sendBlob(w *recorder, r *http.Request, t target, blob *cache.Blob) error {
	setContent(w.Header(), blob.State, blobType, t.digest)
	if blob.Content != nil {
		sendBytes(w, r, blob.Content)
		return nil
	}
	// A client waits only seconds for the headers (SOCI: 3). A fill may take longer
	// to get the bytes that the client wants.
	w.prompt = blob.State != cache.Hit
	// ServeContent must get the *os.File of a hit itself, so that it uses sendfile.
	http.ServeContent(w, r, "", time.Time{}, blob.ReadSeeker)
	if p.store.ReadFailed(t.digest, w.copied) {
		return fmt.Errorf("read blob %s from the disk: %w", t.digest, w.copied)
	}
	if err := blob.Err(); err != nil && r.Context().Err() == nil {
		return err
	}
	return nil
}

// headBlob answers HEAD of a blob, for which its size is enough. If neither a manifest nor
// the upstream has told it, it comes from the disk, or from the fill that a GET would
// begin.
func (p *pulls) headBlob(ctx context.Context, w *recorder, r *http.Request, t target, size int64) error {
	state := cache.Miss
	if onDisk, err := p.store.Size(t.repo, t.digest); err == nil {
		size, state = onDisk, cache.Hit
	}
	if size < 0 {
		blob, err := p.store.Open(ctx, t.digest, p.source(t, size))
		if err != nil {
			return err
		}
		size = blob.Size
		if err := blob.Close(); err != nil {
			return err
		}
	}
	setContent(w.Header(), state, blobType, t.digest)
	// For a HEAD, ServeContent needs the size, and reads nothing.
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(bytes.NewReader(nil), 0, size))
	return nil
}

// askManifest is how the store asks the upstream for a manifest. The memory that it takes is
// given back when the store has checked and kept it.
func (p *pulls) askManifest(t target) cache.Ask {
	return func(ctx context.Context, reference string, head bool) (cache.Manifest, error) {
		if t.unattended {
			ctx = t.background(ctx, nil)
		}
		share := p.memory.manifest(t.metricName())
		desc, raw, err := t.source.Manifest(t.within(ctx, share.read), t.repo.Name, reference, head)
		if err == nil {
			err = share.decode(ctx, len(raw))
		}
		if err != nil {
			share.release()
			return cache.Manifest{}, err
		}
		return cache.Manifest{Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size, Raw: raw, Done: share.release}, nil
	}
}

// askBlob is how the store asks the upstream whether the repository has a blob, and
// its size.
func askBlob(t target) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		return t.source.BlobSize(ctx, t.repo.Name, t.digest)
	}
}

// source is where the store fetches a blob for this target. size is what a manifest tells,
// in bytes, and not positive if none does.
func (p *pulls) source(t target, size int64) cache.Source {
	return p.store.Source(t.repo, t.digest, max(size, 0), func(ctx context.Context, part cache.Range) (cache.Content, error) {
		if !cache.IsAttended(ctx) {
			ctx = t.background(ctx, cache.Attention(ctx))
		}
		return t.source.OpenBlob(t.ofClient(ctx), t.repo.Name, t.digest, part)
	})
}
