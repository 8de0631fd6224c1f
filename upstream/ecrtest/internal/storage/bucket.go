package storage

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/secret"
)

// Options describes a [Bucket].
type Options struct {
	Account, Region string
	Key             secret.Key    // signs URLs
	URLTTL          time.Duration // how long a URL is valid; rounded up to seconds
	Now             func() time.Time
}

// Bucket is the storage of one registry. Its methods may be called by several
// goroutines at once.
type Bucket struct {
	front   *frontend.Frontend
	account string
	key     secret.Key
	signer  signer
	sender  sender

	mu      sync.RWMutex // guards the fields below
	objects map[digest.Digest]*Object
	paths   map[string]*Object
}

// New returns an empty bucket whose requests pass through front.
func New(front *frontend.Frontend, opts Options) *Bucket {
	return &Bucket{
		front:   front,
		account: opts.Account,
		key:     opts.Key,
		signer:  signer{key: opts.Key, region: opts.Region, ttl: opts.URLTTL, now: opts.Now},
		objects: make(map[digest.Digest]*Object),
		paths:   make(map[string]*Object),
	}
}

// Put adds a content under its digest and returns its object: the one that is
// there already, if there is one.
func (b *Bucket) Put(dgst digest.Digest, c Content) *Object {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[dgst]
	if o == nil {
		o = &Object{Digest: dgst, Content: c, path: b.pathOf(dgst)}
		b.objects[dgst] = o
		b.paths[o.path] = o
	}
	return o
}

// pathOf returns the path of a digest. Like a key of ECR's buckets it does not
// reveal the digest to anyone without the secret.
func (b *Bucket) pathOf(dgst digest.Digest) string {
	id := uuid.NewSHA1(uuid.Nil, []byte(b.key.Sign("object", dgst.String())))
	return "/" + b.account + "/" + id.String()
}

// SignedURL returns a URL at which the bucket answers a GET of an object, until the
// URL expires. It counts a redirect.
func (b *Bucket) SignedURL(o *Object) string {
	o.redirects.Add(1)
	return b.signer.url(o.path)
}

// SetURL says where the bucket is served: a scheme and a host.
func (b *Bucket) SetURL(u string) { b.signer.setBase(u) }

// ExpireURLs makes every URL that was signed so far an expired one. Bodies that are
// being sent are not affected.
func (b *Bucket) ExpireURLs() { b.signer.epoch.Add(1) }

// SetBandwidth limits the bytes per second of each connection, also of answers that
// are being sent; 0 removes the limit.
func (b *Bucket) SetBandwidth(bytesPerSecond int64) { b.sender.bandwidth.Store(bytesPerSecond) }

// Stats returns the counts of all objects.
func (b *Bucket) Stats() map[digest.Digest]BlobStats {
	b.mu.RLock()
	defer b.mu.RUnlock()
	stats := make(map[digest.Digest]BlobStats, len(b.objects))
	for dgst, o := range b.objects {
		stats[dgst] = o.stats()
	}
	return stats
}

// ResetStats sets the counts of all objects to zero.
func (b *Bucket) ResetStats() {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, o := range b.objects {
		o.reset()
	}
}

// ServeHTTP answers requests of signed URLs.
func (b *Bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.RLock()
	o := b.paths[r.URL.Path]
	b.mu.RUnlock()
	of := frontend.Subject{Op: frontend.Storage}
	if o != nil {
		of.Content = o.Digest
		o.requests.Add(1)
	}
	b.front.Serve(w, r, of, fail, func(x *frontend.Exchange) { b.answer(x, o) })
}

// answer answers a GET of a signed URL. The method is signed, so that no other
// method passes the check. o is nil if there is no such object.
func (b *Bucket) answer(x *frontend.Exchange, o *Object) {
	h := x.Header()
	h.Set("Server", "AmazonS3")
	if e := b.signer.check(x.Request); e != nil {
		e.reply(x)
		return
	}
	if o == nil {
		fail(x, frontend.Error{Status: http.StatusNotFound, Code: "NoSuchKey", Message: "The specified key does not exist."})
		return
	}
	size, etag := o.Content.Size(), strconv.Quote(o.Digest.Encoded()[:32])
	part := byteRange{n: size, status: http.StatusOK}
	if !x.IgnoresRange() {
		h.Set("Accept-Ranges", "bytes")
		if cond := x.Request.Header.Get("If-Range"); cond == "" || cond == etag {
			part = selectRange(x.Request.Header.Get("Range"), size)
		}
	}
	switch part.status {
	case http.StatusRequestedRangeNotSatisfiable:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		fail(x, frontend.Error{Status: part.status, Code: "InvalidRange", Message: "The requested range is not satisfiable"})
		return
	case http.StatusPartialContent:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.n-1, size))
	}
	h.Set("Etag", etag)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(part.n, 10))
	x.WriteHeader(part.status)
	x.CountBody(&o.bytes, part.start)
	b.sender.send(x, o.Content, part.start, part.n)
}
