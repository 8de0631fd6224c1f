package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
)

// manifest answers GET and HEAD of a manifest by tag or digest.
func (p *Proxy) manifest(w *recorder, r *http.Request, t target) error {
	if m, ok := p.manifestHere(t); ok {
		sendManifest(w, r, cache.Hit, m)
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.timeout, errSlow)
	defer cancel()
	var m cache.Manifest
	var state cache.State
	var err error
	if t.digest != "" {
		m, state, err = p.store.Manifest(ctx, t.repo, t.digest, ask(t))
	} else {
		m, state, err = p.store.Tag(ctx, t.repo, t.reference, ask(t))
	}
	if err != nil {
		w.Header().Set(xCache, string(state))
		return err
	}
	sendManifest(w, r, state, m)
	return nil
}

func (p *Proxy) manifestHere(t target) (cache.Manifest, bool) {
	if t.digest != "" {
		return p.store.ManifestHere(t.repo, t.digest)
	}
	return p.store.TagHere(t.repo, t.reference)
}

func sendManifest(w *recorder, r *http.Request, state cache.State, m cache.Manifest) {
	setContent(w.Header(), state, m.MediaType, m.Digest)
	sendBytes(w, r, m.Raw)
}

// ask puts the store's questions about manifests to the upstream.
func ask(t target) cache.Ask {
	return func(ctx context.Context, reference string, head bool) (cache.Manifest, error) {
		desc, raw, err := t.upstream.Manifest(ctx, t.repo.Name, reference, head)
		return cache.Manifest{Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size, Raw: raw}, err
	}
}

// blob answers GET and HEAD of a blob, whole or in ranges.
func (p *Proxy) blob(w *recorder, r *http.Request, t target) error {
	if r.Method == http.MethodGet {
		if blob := p.store.BlobHere(t.repo, t.digest); blob != nil {
			defer blob.Close()
			return p.sendBlob(w, r, t, blob)
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	slow := time.AfterFunc(t.timeout, func() { cancel(errSlow) })
	defer slow.Stop()
	size, err := p.store.Holds(ctx, t.repo, t.digest, confirm(t))
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		return p.headBlob(ctx, w, r, t, size)
	}
	defer p.readers.add(r, t.repo, t.digest)()
	blob, err := p.store.Open(ctx, t.digest, max(size, 0), p.fetch(t))
	if err != nil {
		return err
	}
	slow.Stop()
	defer blob.Close()
	defer cancel(nil) // before Close, which waits for a read in progress
	return p.sendBlob(w, r, t, blob)
}

func (p *Proxy) sendBlob(w *recorder, r *http.Request, t target, blob *cache.Blob) error {
	setContent(w.Header(), blob.State, blobType, t.digest)
	if blob.Content != nil {
		sendBytes(w, r, blob.Content)
		return nil
	}
	// Clients wait seconds for headers (SOCI: 3), and a fill may need longer for
	// its last bytes.
	w.prompt = blob.State != cache.Hit
	// The *os.File of a hit must reach ServeContent as it is, for sendfile.
	http.ServeContent(w, r, "", time.Time{}, blob.ReadSeekCloser)
	if errors.Is(w.copied, unix.EIO) { // no socket has such an error: the file has
		p.store.Distrust(t.digest)
		return fmt.Errorf("read blob %s from the disk: %w", t.digest, w.copied)
	}
	if err := blob.Err(); err != nil && r.Context().Err() == nil {
		return err
	}
	return nil
}

// headBlob needs the size only. Where neither a manifest nor the disk tells it,
// the fill that a GET would begin does.
func (p *Proxy) headBlob(ctx context.Context, w *recorder, r *http.Request, t target, size int64) error {
	state := cache.Miss
	if onDisk, err := p.store.Stat(t.digest); err == nil {
		size, state = onDisk, cache.Hit
	}
	if size < 0 {
		blob, err := p.store.Open(ctx, t.digest, 0, p.fetch(t))
		if err != nil {
			return err
		}
		size = blob.Size
		if err := blob.Close(); err != nil {
			return err
		}
	}
	setContent(w.Header(), state, blobType, t.digest)
	http.ServeContent(w, r, "", time.Time{}, &hollow{size: size})
	return nil
}

// fetch and confirm put the store's questions about blobs to the upstream.
func (p *Proxy) fetch(t target) cache.Fetch {
	return p.store.Remembering(t.repo, t.digest, func(ctx context.Context, r cache.Range) (cache.Content, error) {
		body, size, whole, err := t.upstream.Blob(ctx, t.repo.Name, t.digest, r.Off, r.Len, r.Spare)
		return cache.Content{Body: body, Size: size, Whole: whole}, err
	})
}

func confirm(t target) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		_, size, _, err := t.upstream.Blob(ctx, t.repo.Name, t.digest, 0, 0, false)
		return size, err
	}
}

// FetchManifest fetches a manifest from its upstream into the cache, unless it is
// cached. It waits for the upstream's timeout at most.
func (p *Proxy) FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) error {
	t, err := p.contentOf(repo, dgst)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errSlow)
	defer cancel()
	_, _, err = p.store.Manifest(ctx, repo, dgst, ask(t))
	return err
}

// FetchBlob fetches a blob from its upstream into the cache, unless it is cached, and
// returns when all of it has arrived. The size is in bytes, 0 if it is not known. A
// blob that the cache cannot keep is an error.
func (p *Proxy) FetchBlob(ctx context.Context, repo cache.Repository, dgst digest.Digest, size int64) error {
	t, err := p.contentOf(repo, dgst)
	if err != nil {
		return err
	}
	blob, err := p.store.Open(ctx, dgst, size, p.fetch(t))
	if err != nil {
		return err
	}
	defer blob.Close()
	if blob.State == cache.Bypass {
		return fmt.Errorf("blob %s: %w", dgst, errNotKept)
	}
	// The fill runs on its own. Reading along waits for it.
	_, err = io.Copy(io.Discard, blob)
	return err
}

var errNotKept = errors.New("the cache could not keep it")

// contentOf is the target of content that no client asked for.
func (p *Proxy) contentOf(repo cache.Repository, dgst digest.Digest) (target, error) {
	source, ok := p.opts.Upstreams(repo.Upstream, repo.Name)
	if !ok {
		return target{}, fmt.Errorf("%s: no configured upstream serves it", repo)
	}
	return target{route: route{digest: dgst}, repo: repo, upstream: source.Upstream, timeout: source.Timeout}, nil
}

// sendBytes is http.ServeContent for what is in memory. What is wanted whole, as it
// nearly always is, goes out in one piece.
func sendBytes(w *recorder, r *http.Request, content []byte) {
	if r.Header["Range"] != nil || r.Header["If-Match"] != nil || r.Header["If-None-Match"] != nil {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		return
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	setLength(h, len(content))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(content) // who has left does not want it
	}
}

const blobType = "application/octet-stream"

// setContent sets the headers that every answer with content has, whatever its
// status. ServeContent adds Content-Length, Content-Range and Accept-Ranges.
func setContent(h http.Header, state cache.State, mediaType string, d digest.Digest) {
	// One allocation for all, where Set makes one for each.
	values := [...]string{mediaType, d.String(), `"` + d.String() + `"`, string(state)}
	h["Content-Type"], h["Docker-Content-Digest"], h["Etag"], h[xCache] = values[0:1:1], values[1:2:2], values[2:3:3], values[3:4:4]
}

// hollow has a size and no bytes: enough for the headers of a HEAD.
type hollow struct{ off, size int64 }

func (h *hollow) Read([]byte) (int, error) {
	return 0, errors.New("read of a blob that was only asked for its headers")
}

func (h *hollow) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += h.off
	case io.SeekEnd:
		offset += h.size
	}
	h.off = offset
	return offset, nil
}
