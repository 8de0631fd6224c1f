package pins

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// Missing is a blob or manifest that a pin holds and that is not in the cache.
type Missing struct {
	records.Repository
	Digest   digest.Digest
	Size     int64 // by the manifest that names it, in bytes; 0 if that does not say
	Manifest bool  // it is a manifest or an index
}

// Missing returns what the pins hold and the cache does not have, as far as it should be
// fetched: what was in the cache and was damaged, and everything for pins of all platforms.
// When the manifests among it are in the cache, there may be more. What a fill brings at the
// moment is among it. If all platforms do not fit into the cache, parts of them that were
// never in the cache are left out, and the error is ENOSPC with the arithmetic.
func (p *Pins) Missing() ([]Missing, error) {
	pins, err := p.All()
	if err != nil {
		return nil, err
	}
	tooLarge := p.checkFits()
	fits, leftOut := tooLarge == nil, false
	var all []Missing
	seen := make(map[Missing]bool)
	for pin, rec := range pins {
		err = errors.Join(err, p.walk(pin, func(d digest.Digest, known bool) error {
			it, ok := p.Items.Get(d)
			switch {
			case ok && !it.Partial, d == d.Algorithm().FromBytes(nil):
				return nil
			case !known && !rec.AllPlatforms:
				return nil
			case !known && !fits:
				leftOut = true
				return nil
			}
			size, isManifest, err := p.announced(pin.Repository, d)
			m := Missing{pin.Repository, d, size, isManifest}
			if !seen[m] {
				seen[m] = true
				all = append(all, m)
			}
			return err
		}))
	}
	if leftOut {
		err = errors.Join(err, tooLarge)
	}
	return all, err
}

// Changed returns a channel that has a value when Missing may return something new. One
// receiver gets it.
func (p *Pins) Changed() <-chan struct{} { return p.missing }

// BlobDamaged says that a pinned blob was removed because it was damaged.
func (p *Pins) BlobDamaged() { p.signal() }

func (p *Pins) signal() {
	select {
	case p.missing <- struct{}{}:
	default: // it has a value already
	}
}

// checkFits returns ENOSPC if the cache cannot hold everything that is pinned or held.
func (p *Pins) checkFits() error {
	evictable, _ := p.Evictable()
	onDisk := p.Items.Bytes() - evictable
	all, _ := p.BytesWith(nil)
	return p.Space.CheckPins(onDisk, all)
}

// reach returns all that the pins hold, and what the tags stand for that have moved and are not
// followed yet, and what it takes on disk. What is not in the cache
// counts if a manifest in the cache tells its size. With an error comes what could be read.
func (p *Pins) reach(pins map[records.Pin]records.PinRecord) (map[digest.Digest]int64, error) {
	all := make(map[digest.Digest]int64)
	roots := maps.Clone(pins)
	errs := p.Index.EachPending(func(repo records.Repository, tag string, rec records.Pending) error {
		pin := records.Pin{Repository: repo, Reference: tag}
		if _, pinned := roots[pin]; !pinned && len(rec.Moves) > 0 {
			roots[pin] = records.PinRecord{}
		}
		return nil
	})
	for pin, rec := range roots {
		own, err := p.reachOf(pin, rec)
		errs = errors.Join(errs, err)
		for d, size := range own {
			all[d] = max(all[d], size)
		}
	}
	return all, errs
}

// reachOf is reach for one pin. A pin whose tag has no record holds nothing.
func (p *Pins) reachOf(pin records.Pin, rec records.PinRecord) (map[digest.Digest]int64, error) {
	all := make(map[digest.Digest]int64)
	err := p.walk(pin, func(d digest.Digest, known bool) error {
		if it, ok := p.Items.Get(d); ok {
			all[d] = it.Bytes
			return nil
		}
		size, isManifest, err := p.announced(pin.Repository, d)
		if isManifest && !known && !rec.AllPlatforms {
			size = 0 // most platforms of an index are never fetched
		}
		all[d] = disk.Charge(size)
		return err
	})
	return all, err
}

// walk visits everything that a pin reaches, each digest once: what its tag names, with the
// referrers that are in the cache, and what it named before as long as that is held. known says
// that the index has a record of it: it is in the cache, or was.
func (p *Pins) walk(pin records.Pin, visit func(d digest.Digest, known bool) error) error {
	root, err := p.Index.Resolve(pin)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	seen := make(map[digest.Digest]bool)
	var walk func(d digest.Digest, depth int) error
	walk = func(d digest.Digest, depth int) error {
		if seen[d] {
			return nil
		}
		seen[d] = true
		rec, err := p.Index.Blob(d)
		known := err == nil
		if known && rec.MediaType != "" && !rec.IsManifest() { // the index was lost, and is being rebuilt
			_, rec, _ = manifest.ReadRecord(p.Folder.Blob(d), d)
		}
		err = errors.Join(disk.IgnoreMissing(err), visit(d, known))
		if depth == 0 || rec.MediaType == "" {
			return err
		}
		for _, child := range rec.Children {
			err = errors.Join(err, walk(child, depth-1))
		}
		referrers, failed := p.referrers(pin.Repository, d)
		err = errors.Join(err, failed)
		for _, referrer := range referrers {
			err = errors.Join(err, walk(referrer, depth-1))
		}
		return err
	}
	if err == nil {
		err = walk(root, recency.MaxDepth)
	}
	if rec, _ := p.Index.Tag(pin.Repository, pin.Reference); rec.Before != "" {
		err = errors.Join(err, walk(rec.Before, recency.MaxDepth))
	}
	if err != nil {
		return fmt.Errorf("find what is pinned by %s: %w", pin, err)
	}
	return nil
}

// referrers returns the manifests in the cache that a repository has and that refer to a
// manifest, such as its signatures.
func (p *Pins) referrers(repo records.Repository, subject digest.Digest) ([]digest.Digest, error) {
	all, err := p.Index.ReferringTo(subject)
	return slices.DeleteFunc(all, func(d digest.Digest) bool {
		rec, err := p.Index.Member(repo, d)
		return err != nil || !rec.Manifest
	}), err
}

// announced is the size of a blob of a repository by the manifest that names it, 0 if none
// does, and whether it is a manifest itself.
func (p *Pins) announced(repo records.Repository, d digest.Digest) (size int64, isManifest bool, err error) {
	rec, err := p.Index.Member(repo, d)
	return max(rec.Size, 0), rec.Manifest, disk.IgnoreMissing(err)
}
