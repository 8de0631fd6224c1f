package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/records"
)

// ErrMismatch says that content does not match its digest.
var ErrMismatch = fill.ErrMismatch

// ImportBlob is a blob or a manifest that an import brings, or needs.
type ImportBlob struct {
	Digest digest.Digest
	Size   int64 // in bytes
}

// Import brings images that do not come from their upstream, as from a bundle. What it brings
// has no name, and no repository, until [Import.Publish] makes an image visible in one step. It
// is kept from eviction until Close. What is complete by then stays in the cache, so that the
// same import goes on where this one stopped.
//
// Its methods may be called from several goroutines at once.
type Import struct {
	store    *Store
	hold     *pins.Hold
	reserved *blobs.Reservation

	mu       sync.Mutex              // guards what follows
	planned  map[digest.Digest]int64 // the sizes that Reserve was told
	verified map[digest.Digest]bool  // here, and hashed by this import
	pinned   bool                    // an image
}

// Import begins an import, which the caller ends with Close before it closes the store. It
// waits until the folder is loaded.
func (s *Store) Import() (*Import, error) {
	if err := s.awaitLoaded(); err != nil {
		return nil, err
	}
	return &Import{
		store:    s,
		hold:     s.pins.Hold(),
		reserved: s.blobs.NewReservation(),
		planned:  make(map[digest.Digest]int64),
		verified: make(map[digest.Digest]bool),
	}, nil
}

// Close ends the import, and gives back what was reserved for blobs that did not come.
func (i *Import) Close() {
	i.reserved.Close()
	i.mu.Lock()
	pinned := i.pinned
	i.mu.Unlock()
	if pinned {
		i.store.pins.RefreshOrWarn() // what pins held before is not needed any more
	}
	i.hold.Close()
}

// ImportSpace is what an import takes. Sizes are in bytes of disk space.
type ImportSpace struct {
	Blobs   int   `json:"blobs"`
	Bytes   int64 `json:"bytes"`   // of all blobs
	Here    int64 `json:"here"`    // of these, that are in the cache already
	Pinned  int64 `json:"pinned"`  // by pins and other imports, before this one
	Added   int64 `json:"added"`   // by which Pinned grows
	MaxSize int64 `json:"maxSize"` // what the cache may take; 0 for any number
	// Lacking are the blobs that are not in the cache, in the order of the call.
	Lacking []digest.Digest `json:"lacking"`
}

// Space tells what these blobs take. It changes nothing. The error is ENOSPC, with the
// arithmetic, if they do not fit beside the pins, or if what may be evicted for them is not
// enough.
func (i *Import) Space(contents []ImportBlob) (ImportSpace, error) {
	sizes, err := i.sizes(contents)
	if err != nil {
		return ImportSpace{}, err
	}
	space, missing := i.sum(contents, sizes)
	err = i.hold.CheckFits(sizes)
	if err == nil {
		err = i.store.blobs.CheckFits(sumOf(missing))
	}
	if err != nil {
		return space, fmt.Errorf("import %d bytes: %w", space.Bytes, err)
	}
	return space, nil
}

// CheckFitsAlone returns ENOSPC, with the arithmetic, for blobs that the cache could not have even
// if nothing were pinned. It changes nothing.
func (i *Import) CheckFitsAlone(contents []ImportBlob) error {
	sizes, err := i.sizes(contents)
	if err != nil {
		return err
	}
	sum := sumOf(sizes)
	if err := i.store.space.CheckPins(0, sum); err != nil {
		return fmt.Errorf("import %d bytes: %w", sum, err)
	}
	return nil
}

// Reserve reserves the space for blobs before the first of them comes, and evicts for them. It
// hashes those that are here: damaged ones are removed and lacking. It calls progress, unless
// that is nil, with the bytes that it has hashed. Further calls add to the first.
//
// The error is ENOSPC as of Space. After an error the import is of no more use.
func (i *Import) Reserve(ctx context.Context, contents []ImportBlob, progress func(done, total int64)) (ImportSpace, error) {
	sizes, err := i.sizes(contents)
	if err != nil {
		return ImportSpace{}, err
	}
	space, _ := i.sum(contents, sizes)
	err = i.store.blobs.WithoutEvictions(func() error { return i.hold.AddIfFits(sizes) })
	if err == nil {
		err = i.verify(ctx, contents, progress)
	}
	if err == nil {
		var missing map[digest.Digest]int64
		pinned := space.Pinned
		space, missing = i.sum(contents, sizes)
		space.Pinned, space.Added = pinned, space.Pinned-pinned
		err = i.reserved.Add(ctx, missing)
	}
	if err != nil {
		return space, fmt.Errorf("import %d bytes: %w", space.Bytes, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range contents {
		i.planned[c.Digest] = c.Size
	}
	return space, nil
}

// maxImport is how many bytes may be planned at once: far more than any disk has, and far from
// where sums of sizes overflow.
const maxImport = 1 << 50

// sizes checks contents and returns what each takes on disk.
func (i *Import) sizes(contents []ImportBlob) (map[digest.Digest]int64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	told := make(map[digest.Digest]int64)
	sizes := make(map[digest.Digest]int64)
	var sum int64
	for _, c := range contents {
		if err := CheckDigest(c.Digest); err != nil {
			return nil, fmt.Errorf("import %q: %w", c.Digest, err)
		}
		known, again := told[c.Digest]
		if !again {
			known, again = i.planned[c.Digest]
		}
		switch {
		case c.Size < 0 || isEmpty(c.Digest) != (c.Size == 0):
			return nil, fmt.Errorf("import %s: it cannot have %d bytes: %w", c.Digest, c.Size, ErrMismatch)
		case again && known != c.Size:
			return nil, fmt.Errorf("import %s: it is said to have both %d and %d bytes: %w", c.Digest, known, c.Size, ErrMismatch)
		case c.Size > maxImport-sum:
			return nil, fmt.Errorf("import %s: with its %d bytes the import has more than %d, for which there is no disk: %w", c.Digest, c.Size, int64(maxImport), unix.ENOSPC)
		}
		sum += c.Size
		told[c.Digest] = c.Size
		if c.Size > 0 {
			sizes[c.Digest] = disk.Charge(c.Size)
		}
	}
	return sizes, nil
}

// sum sums up what blobs take, and returns what must be reserved for each that is missing.
func (i *Import) sum(contents []ImportBlob, sizes map[digest.Digest]int64) (space ImportSpace, missing map[digest.Digest]int64) {
	s := i.store
	space = ImportSpace{Blobs: len(sizes), Bytes: sumOf(sizes), MaxSize: s.space.MaxSize(), Lacking: []digest.Digest{}}
	space.Pinned, space.Added = s.pins.BytesWith(sizes)
	missing = make(map[digest.Digest]int64)
	for _, c := range contents {
		bytes, ok := sizes[c.Digest]
		if _, again := missing[c.Digest]; !ok || again {
			continue
		}
		if _, err := s.blobs.Stat(c.Digest); err == nil {
			space.Here += bytes
			continue
		}
		space.Lacking = append(space.Lacking, c.Digest)
		if it, _ := s.items.Get(c.Digest); it.Partial {
			bytes -= it.Bytes
		}
		missing[c.Digest] = max(bytes, 0)
	}
	return space, missing
}

func sumOf(sizes map[digest.Digest]int64) int64 {
	var n int64
	for _, size := range sizes {
		n += size
	}
	return n
}

// verify hashes the blobs that are here, unless this import has done so. It removes damaged
// ones.
func (i *Import) verify(ctx context.Context, contents []ImportBlob, progress func(done, total int64)) error {
	var here []ImportBlob
	var done, total int64
	for _, c := range contents {
		if _, err := i.store.blobs.Stat(c.Digest); err == nil && !i.isVerified(c.Digest) {
			here = append(here, c)
			total += c.Size
		}
	}
	for _, c := range here {
		err := i.store.blobs.Check(ctx, c.Digest)
		switch {
		case err == nil:
			if size, err := i.store.blobs.Stat(c.Digest); err == nil && size != c.Size {
				return fmt.Errorf("%s has %d bytes and not %d: %w", c.Digest, size, c.Size, ErrMismatch)
			}
			i.setVerified(c.Digest)
		case disk.IgnoreMissing(err) != nil:
			return err
		}
		if done += c.Size; progress != nil {
			progress(done, total)
		}
	}
	return nil
}

// has reports whether a blob is here and this import has verified it.
func (i *Import) has(d digest.Digest) bool {
	if isEmpty(d) {
		return true
	}
	_, err := i.store.blobs.Stat(d)
	return err == nil && i.isVerified(d)
}

func (i *Import) isVerified(d digest.Digest) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.verified[d]
}

func (i *Import) setVerified(d digest.Digest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.verified[d] = true
}

// Put stores a blob or a manifest from a reader, and returns when it is complete and verified.
// It reads nothing if the blob is here already, and perhaps not all if an earlier import left a
// partial of it, or if a fill brings the same blob meanwhile. For a blob that was not reserved it calls Reserve first.
//
// The error is ErrMismatch if the content does not match its digest or its size, the error of r,
// or the reason why the disk does not take it, such as ENOSPC. After an error, the same call with
// the same content may succeed.
func (i *Import) Put(ctx context.Context, c ImportBlob, r io.Reader) error {
	if !i.isPlanned(c) {
		if _, err := i.Reserve(ctx, []ImportBlob{c}, nil); err != nil {
			return err
		}
	}
	err := i.verify(ctx, []ImportBlob{c}, nil) // what has come since Reserve
	if err == nil && i.has(c.Digest) {
		i.reserved.Release(c.Digest)
		return nil
	}
	if err == nil {
		err = i.put(ctx, c, r)
	}
	if err != nil {
		return fmt.Errorf("import blob %s: %w", c.Digest, err)
	}
	i.reserved.Release(c.Digest) // if a fill that had its own has brought it
	i.setVerified(c.Digest)
	return nil
}

func (i *Import) isPlanned(c ImportBlob) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	size, ok := i.planned[c.Digest]
	return ok && size == c.Size
}

// put stores a blob. What may be a manifest is read into memory to find out.
func (i *Import) put(ctx context.Context, c ImportBlob, r io.Reader) error {
	if c.Size > MaxManifest {
		content := &io.LimitedReader{R: r, N: c.Size}
		if err := i.store.blobs.Take(ctx, c.Digest, c.Size, content); err != nil || content.N > 0 {
			return err // without an error, the rest was on disk, or came in another way
		}
		return checkEnd(r)
	}
	raw := make([]byte, c.Size)
	if _, err := io.ReadFull(r, raw); err != nil {
		return fmt.Errorf("read %d bytes: %w", c.Size, noEOF(err))
	}
	if err := checkEnd(r); err != nil {
		return err
	}
	if c.Digest.Algorithm().FromBytes(raw) != c.Digest {
		return ErrMismatch
	}
	if _, err := manifest.TypeOf(raw); err != nil {
		return i.store.blobs.Take(ctx, c.Digest, c.Size, bytes.NewReader(raw))
	}
	return i.putManifest(ctx, c.Digest, raw)
}

// noEOF returns what io.EOF means in the middle of a blob.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkEnd returns ErrMismatch if a reader has more bytes.
func checkEnd(r io.Reader) error {
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return fmt.Errorf("it has more bytes than was said: %w", ErrMismatch)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// putManifest stores a manifest as its own kind of file, see FORMAT.md. Its record is that of a
// blob, which no repository has, until the image is published.
func (i *Import) putManifest(ctx context.Context, d digest.Digest, raw []byte) error {
	s := i.store
	s.came(d)
	record := func() error {
		if _, err := s.index.Blob(d); err == nil {
			return nil
		}
		return s.index.PutBlob(d, records.Blob{Size: int64(len(raw)), Fetched: s.now()})
	}
	return s.blobs.PutAfterFill(ctx, d, raw, record)
}
