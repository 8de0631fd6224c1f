package storage

import (
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Content is the bytes of a blob. It does not change, and several goroutines may
// read it at once.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Object is a blob in a bucket.
type Object struct {
	Digest  digest.Digest
	Content Content

	path                       string // of its URL
	redirects, requests, bytes atomic.Int64
}

// BlobStats says how often one blob was requested, in all repositories together.
type BlobStats struct {
	Redirects int   // signed URLs given out
	Requests  int   // to storage, also those that failed
	Bytes     int64 // of the blob that storage wrote to the connections of clients
}

func (o *Object) stats() BlobStats {
	return BlobStats{
		Redirects: int(o.redirects.Load()),
		Requests:  int(o.requests.Load()),
		Bytes:     o.bytes.Load(),
	}
}

func (o *Object) reset() {
	o.redirects.Store(0)
	o.requests.Store(0)
	o.bytes.Store(0)
}
