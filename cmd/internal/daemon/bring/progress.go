package bring

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is how far an image is.
type Progress struct {
	Image string `json:"image"` // its full name
	Done  int64  `json:"done"`  // bytes
	Total int64  `json:"total"` // bytes; 0 until the manifests are here
	Ended bool   `json:"ended"` // it is whole, or has failed
}

// Sum returns how many bytes of images are done, and of how many.
func Sum(images []Progress) (done, total int64) {
	for _, image := range images {
		done, total = done+image.Done, total+image.Total
	}
	return done, total
}

// Meter measures the progress of one image. Its methods may be called from several goroutines
// at once.
type Meter struct {
	mu       sync.Mutex // guards what follows
	progress Progress
	running  map[digest.Digest]int64 // the sizes of blobs that are not here yet, in bytes
	fetched  int64                   // bytes
}

// NewMeter returns the meter of an image, by its full name.
func NewMeter(image string) *Meter {
	return &Meter{progress: Progress{Image: image}, running: make(map[digest.Digest]int64)}
}

// plan sets what the image consists of.
func (m *Meter) plan(blobs []ocispec.Descriptor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, blob := range blobs {
		m.progress.Total += blob.Size
		m.running[blob.Digest] = blob.Size
	}
}

// done says that a blob is here, of which so many bytes were fetched.
func (m *Meter) done(blob ocispec.Descriptor, fetched int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.running, blob.Digest)
	m.progress.Done += blob.Size
	m.fetched += fetched
}

func (m *Meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress.Ended = true
}

func (m *Meter) bytesFetched() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetched
}

// now returns the progress. filling are the bytes that fills have brought of their blobs.
func (m *Meter) now(filling map[digest.Digest]int64) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.progress
	for d, size := range m.running {
		p.Done += min(filling[d], size)
	}
	return p
}

// Progress returns what a meter measures.
func (b *Bringer) Progress(m *Meter) Progress { return m.now(b.filling()) }

// filling returns the bytes that fills have brought of their blobs.
func (b *Bringer) filling() map[digest.Digest]int64 {
	filling := make(map[digest.Digest]int64)
	for _, fill := range b.store.Fills() {
		filling[fill.Digest] = fill.Have
	}
	return filling
}

// reporting reports the progress of images until the returned function is called, and then
// once more.
func (b *Bringer) reporting(meters []*Meter, report func([]Progress)) (end func()) {
	if report == nil {
		return func() {}
	}
	now := func() {
		filling := b.filling()
		all := make([]Progress, len(meters))
		for i, m := range meters {
			all[i] = m.now(filling)
		}
		report(all)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(reportEvery)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				now()
			}
		}
	})
	return func() {
		close(stop)
		running.Wait()
		now()
	}
}
