package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
)

// manifest answers GET and HEAD of a manifest by tag or digest.
func (p *Proxy) manifest(w *recorder, r *http.Request, t target) error {
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
	setContent(w.Header(), state, m.MediaType, m.Digest.String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.Raw))
	return nil
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
	defer p.audience.join(r, t)()
	blob, err := p.store.Open(ctx, t.digest, max(size, 0), p.fetch(t))
	if err != nil {
		return err
	}
	slow.Stop()
	defer blob.Close()
	defer cancel(nil) // before Close, which waits for a read in progress
	setContent(w.Header(), blob.State, "application/octet-stream", t.digest.String())
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
	setContent(w.Header(), state, "application/octet-stream", t.digest.String())
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

// setContent sets the headers that every answer with content has, whatever its
// status. ServeContent adds Content-Length, Content-Range and Accept-Ranges.
func setContent(h http.Header, state cache.State, mediaType, digest string) {
	h.Set("Content-Type", mediaType)
	h.Set("Docker-Content-Digest", digest)
	h.Set("Etag", `"`+digest+`"`)
	h.Set(xCache, string(state))
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
