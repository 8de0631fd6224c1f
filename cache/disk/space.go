package disk

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Space keeps the folder within its bounds: the maximum size counts everything in the
// folder, and the minimum free space is left on the file system, which others use too.
// A file's bytes are reserved before they are written. When they are allocated on disk
// the reservation is confirmed. When the file is gone they are released.
//
// Its methods may be called from several goroutines at once.
type Space struct {
	folder  *Folder
	maxSize int64 // bytes in the folder; 0 for no bound
	minFree int64 // bytes of the file system that stay free
	lax     bool  // maxSize bounds only the pins: see Bounds.KeepAll

	mu          sync.Mutex // guards what follows; statfs is called under it, which takes a microsecond
	used        int64      // by blobs and partials
	unconfirmed int64      // of used: not allocated on disk yet
	overhead    int64      // of everything else, see Folder.overhead, with what it may grow

	quota      int64     // what a disk quota leaves, if one was met; see AdoptQuota
	quotaUntil time.Time // when quota ends
}

// OverheadSlack is how much the index may grow until it is measured again.
const OverheadSlack = 16 << 20

// Bounds are the limits of a Space.
type Bounds struct {
	// MaxSize is how many bytes the folder may take with everything in it. 0 means any
	// number.
	MaxSize int64
	// MinFree is how many bytes of the file system stay free. Some always do, for the
	// index.
	MinFree int64
	// KeepAll is for a process that must not evict: the bounds limit what may be pinned
	// and nothing else.
	KeepAll bool
}

// NewSpace returns the accounting of a folder in which nothing is counted yet.
func NewSpace(f *Folder, b Bounds) *Space {
	sp := &Space{folder: f, maxSize: b.MaxSize, minFree: max(b.MinFree, BlobReserve), lax: b.KeepAll}
	if sp.lax {
		sp.minFree = BlobReserve
	}
	return sp
}

// MaxSize is the bound that the Space was made with; 0 for none.
func (sp *Space) MaxSize() int64 { return sp.maxSize }

// boundLocked is how much the folder may take at the moment; 0 for no bound.
func (sp *Space) boundLocked() int64 {
	switch {
	case sp.lax:
		return 0
	case sp.quota > 0 && (sp.maxSize == 0 || sp.quota < sp.maxSize) && time.Now().Before(sp.quotaUntil):
		return sp.quota
	}
	return sp.maxSize
}

// maxReserve bounds the number of bytes that are asked for, so that sums with it stay
// numbers. No file system has as many.
const maxReserve = 1 << 60

// Reserve reserves n bytes for one blob. If they do not fit, or the file system has too few
// inodes, it reserves nothing, and returns what must be freed first.
func (sp *Space) Reserve(n int64) (short Amount, err error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	n = min(n, maxReserve)
	if short, err = sp.shortLocked(n); err != nil || short.IsPositive() {
		return short, err
	}
	sp.used += n
	sp.unconfirmed += n
	return Amount{}, nil
}

// Short returns what Reserve would: what must be freed before n bytes can be reserved. It
// reserves nothing.
func (sp *Space) Short(n int64) (Amount, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.shortLocked(min(n, maxReserve))
}

func (sp *Space) shortLocked(n int64) (Amount, error) {
	free, keepFiles, err := sp.folder.free()
	if err != nil {
		return Amount{}, err
	}
	short := Amount{
		Bytes: sp.minFree - (free.Bytes - sp.unconfirmed - n),
		Files: keepFiles + FilesPerBlob - free.Files,
	}
	if bound := sp.boundLocked(); bound > 0 {
		short.Bytes = max(short.Bytes, sp.used+sp.overhead+n-bound)
	}
	return short, nil
}

// Confirm says that n of the reserved bytes are now allocated on disk, or never will be:
// the file system's own count includes them.
func (sp *Space) Confirm(n int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.unconfirmed -= n
}

// Add counts n bytes that are on disk already.
func (sp *Space) Add(n int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.used += n
}

// Release gives n bytes back: their file is gone, or will not be written.
func (sp *Space) Release(n int64) { sp.Add(-n) }

// CheckFits returns a [BoundError] if n bytes do not fit even into an empty cache.
func (sp *Space) CheckFits(n int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if bound := sp.boundLocked(); bound > 0 && n > bound-sp.overhead { // n is any number that an upstream said
		return BoundError{fmt.Errorf("%d bytes do not fit into a cache of %d, of which %d are for the index: %w",
			n, bound, sp.overhead, unix.ENOSPC)}
	}
	return nil
}

// CheckPins returns ENOSPC if the pins would take more than the bound. before and after
// are the bytes that all pins take now and would take.
func (sp *Space) CheckPins(before, after int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if left := sp.maxSize - sp.overhead; sp.maxSize > 0 && after > left {
		return fmt.Errorf("%d bytes beside the %d that are pinned make %d, and %d of max_size, less %d for the index, leave %d: %w",
			after-before, before, after, sp.maxSize, sp.overhead, left, unix.ENOSPC)
	}
	return nil
}

// Excess is by how much the folder is above the given part of its maximum size, or the file
// system below the minimum free space. pinned bytes may all stay: the part is of the rest.
func (sp *Space) Excess(part float64, pinned int64) (Amount, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	excess, err := sp.Lack()
	if err != nil {
		return Amount{}, err
	}
	if bound := sp.boundLocked(); bound > 0 {
		excess.Bytes = max(excess.Bytes, sp.used+sp.overhead-pinned-int64(part*float64(bound-pinned)))
	}
	return excess, nil
}

// Lack is by how much the file system is below the minimum free space.
func (sp *Space) Lack() (Amount, error) {
	free, keepFiles, err := sp.folder.free()
	return Amount{sp.minFree - free.Bytes, keepFiles - free.Files}, err
}

// Measure measures what the folder takes beside blobs and partials.
func (sp *Space) Measure() error {
	sum, err := sp.folder.overhead()
	if err != nil {
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.overhead = sum + OverheadSlack
	return nil
}

// Size is what the folder takes, in bytes.
func (sp *Space) Size() int64 {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.used + sp.overhead - OverheadSlack
}

// Account is the part of the accounting that concerns blobs and partials: the bytes that
// are counted, and those of them that are reserved and not confirmed.
func (sp *Space) Account() (used, unconfirmed int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.used, sp.unconfirmed
}

// quotaFor is how long a quota that was met bounds the folder: it may be raised.
const quotaFor = time.Hour

// IsQuota reports whether an error says that a quota is used up.
func IsQuota(err error) bool { return errors.Is(err, unix.EDQUOT) }

// AdoptQuota makes the folder's present size its bound, less the space that the index
// needs at the end of a quota as at the end of a file system. statfs(2) does not tell the
// quota of a user: a write that fails with EDQUOT does. bound is 0 if blobs are not what
// fills the quota. first reports whether there was no such bound before.
func (sp *Space) AdoptQuota() (bound int64, first bool) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	onDisk := sp.used - sp.unconfirmed
	if onDisk <= BlobReserve {
		return 0, false
	}
	first = sp.quota == 0
	sp.quota = onDisk + sp.overhead - BlobReserve
	sp.quotaUntil = time.Now().Add(quotaFor)
	return sp.quota, first
}

// BoundError is ENOSPC by the cache's own bound: the disk may have space left.
type BoundError struct{ Err error }

func (e BoundError) Error() string { return e.Err.Error() }

// Unwrap is for errors.Is and errors.As.
func (e BoundError) Unwrap() error { return e.Err }
