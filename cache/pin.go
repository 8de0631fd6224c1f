package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// Pin is an image that is never evicted.
type Pin = records.Pin

// pinned is what the pins hold, for eviction to pass over. The zero value holds
// nothing. The index is what counts: who changes there what pins reach calls
// Store.repin afterwards.
type pinned struct {
	rebuild sync.Mutex // held by who finds out what follows anew, during I/O

	mu      sync.Mutex // guards what follows
	names   map[Pin]records.PinRecord
	digests map[digest.Digest]int64 // the closures: what each of them takes on disk, now or once it is fetched
	bytes   int64                   // all of them

	configured configured
}

func (p *pinned) holds(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.digests[d]
	return ok
}

func (p *pinned) has(pin Pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.names[pin]
	return ok
}

// Pin keeps an image that is in the cache from eviction: all of it that is here,
// what of it is fetched later, and what its tag moves to. It returns
// fs.ErrNotExist where the repository is not known to have the image, and
// ENOSPC, with the arithmetic, where the cache cannot hold it beside the others.
func (s *Store) Pin(repo Repository, reference string) error {
	return s.pin(Pin{Repository: repo, Reference: reference}, records.PinRecord{Since: s.opts.Now()})
}

// PinAllPlatforms is Pin for all platforms of an index: those that are not here
// count as far as their manifests are, and are among what [Store.Lacking] says.
// It makes an earlier pin of some platforms one of all.
func (s *Store) PinAllPlatforms(repo Repository, reference string) error {
	return s.pin(Pin{Repository: repo, Reference: reference}, records.PinRecord{Since: s.opts.Now(), AllPlatforms: true})
}

func (s *Store) pin(pin Pin, rec records.PinRecord) error {
	if err := s.awaitScan(); err != nil {
		return err
	}
	s.evicting.Lock() // or what is pinned may be on its way out
	defer s.evicting.Unlock()
	s.pinned.rebuild.Lock()
	defer s.pinned.rebuild.Unlock()
	if _, err := s.index.Resolve(pin); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pin %s: %w", pin, errNoImage)
	} else if err != nil {
		return err
	}
	pins, err := s.index.Pins()
	if err != nil {
		return err
	}
	if earlier, ok := pins[pin]; ok && (earlier.AllPlatforms || !rec.AllPlatforms) {
		return nil
	}
	s.pinned.addConfigured(pins)
	before, err := s.reach(pins)
	if err != nil {
		return err
	}
	pins[pin] = rec
	after, err := s.reach(pins)
	if err != nil {
		return err
	}
	if err := s.space.CheckPins(sum(before), sum(after)); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	if err := s.index.PutPin(pin, rec); err != nil {
		return err
	}
	s.pinned.set(pins, after)
	s.wantLacking()
	return nil
}

// Unpin lets an image be evicted again. It returns fs.ErrNotExist where it was
// not pinned, and [ErrConfigured] where Options.Pin has it pinned all the same.
func (s *Store) Unpin(repo Repository, reference string) error {
	if err := s.awaitScan(); err != nil {
		return err
	}
	pin := Pin{Repository: repo, Reference: reference}
	configured := s.pinned.isConfigured(pin)
	err := s.index.RemovePin(pin)
	if err == nil {
		err = s.repin()
	} else if errors.Is(err, fs.ErrNotExist) {
		err = errNotPinned
	}
	if configured && disk.IgnoreMissing(err) == nil {
		err = ErrConfigured
	}
	if err != nil {
		return fmt.Errorf("unpin %s: %w", pin, err)
	}
	return nil
}

// PinInfo is a pin as [Store.Pins] tells it.
type PinInfo struct {
	Image        string `json:"image"`        // <upstream>/<repository>:<tag> or @<digest>
	AllPlatforms bool   `json:"allPlatforms"` // and not those alone that are here
	Configured   bool   `json:"configured"`   // by Options.Pin
}

// Pins returns what is pinned, sorted by name. It waits for the scan.
func (s *Store) Pins() ([]PinInfo, error) {
	if err := s.awaitScan(); err != nil {
		return nil, err
	}
	pins, err := s.pins()
	all := make([]PinInfo, 0, len(pins))
	for pin, rec := range pins {
		all = append(all, PinInfo{Image: pin.String(), AllPlatforms: rec.AllPlatforms, Configured: s.pinned.isConfigured(pin)})
	}
	slices.SortFunc(all, func(a, b PinInfo) int { return cmp.Compare(a.Image, b.Image) })
	return all, err
}

// pins returns the pins of commands and of the configuration.
func (s *Store) pins() (map[Pin]records.PinRecord, error) {
	pins, err := s.index.Pins()
	if err == nil {
		s.pinned.addConfigured(pins)
	}
	return pins, err
}

// repin finds out anew what the pins hold. One at a time, each from a look at the
// index that is later than its caller's change.
func (s *Store) repin() error {
	s.pinned.rebuild.Lock()
	defer s.pinned.rebuild.Unlock()
	pins, err := s.pins()
	if err != nil {
		return err
	}
	digests, err := s.reach(pins)
	s.letGo(digests)
	s.pinned.set(pins, digests)
	return err
}

// letGo puts what is about to be pinned no more in the order in which it is to
// be evicted: while it was pinned, evictions that passed over a part of it may
// have left an image behind its layers.
func (s *Store) letGo(held map[digest.Digest]int64) {
	var left []digest.Digest
	s.pinned.mu.Lock()
	for d := range s.pinned.digests {
		if _, ok := held[d]; !ok {
			left = append(left, d)
		}
	}
	s.pinned.mu.Unlock()
	parts := func(d digest.Digest) []digest.Digest {
		all, _ := s.index.Children(d)
		return all
	}
	for _, d := range descend(left, parts) {
		s.recency.Skip(d)
	}
}

// manifestKept says that a manifest is here with what it names.
func (s *Store) manifestKept(d digest.Digest) {
	s.pinned.rebuild.Lock() // a repin that began before has seen nothing of it
	held := s.pinned.holds(d)
	s.pinned.rebuild.Unlock()
	if held {
		s.repinOrWarn()
		s.wantLacking()
	}
}

// tagMoved says that a tag has a new record, by which it stands for what may be
// another manifest than before.
func (s *Store) tagMoved(repo Repository, tag string, before, now digest.Digest) {
	pin := Pin{Repository: repo, Reference: tag}
	s.pinned.rebuild.Lock()
	named := s.pinned.has(pin)
	s.pinned.rebuild.Unlock()
	switch {
	case before == now && s.pinned.holds(now): // nothing follows from it
	case named:
		s.repinOrWarn()
		s.wantLacking()
	default:
		s.pinAsConfigured(pin)
	}
}

func (s *Store) repinOrWarn() {
	if err := s.repin(); err != nil {
		s.log.Warn("what is pinned may be evicted", "error", err)
	}
}

func (p *pinned) set(names map[Pin]records.PinRecord, digests map[digest.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.digests, p.bytes = names, digests, sum(digests)
}

// evictable is what everything takes that is not pinned.
func (s *Store) evictable() int64 {
	left := s.recency.Bytes()
	s.pinned.mu.Lock()
	defer s.pinned.mu.Unlock()
	for d := range s.pinned.digests {
		it, _ := s.recency.Get(d)
		left -= it.Bytes
	}
	return left
}

// reach returns all that the pins hold, and what it takes on disk. What is not
// here counts where a manifest that is here tells its size. With an error comes
// what could be read.
func (s *Store) reach(pins map[Pin]records.PinRecord) (map[digest.Digest]int64, error) {
	all := make(map[digest.Digest]int64)
	var errs error
	for pin, rec := range pins {
		own, err := s.reachOf(pin, rec)
		errs = errors.Join(errs, err)
		for d, size := range own {
			all[d] = max(all[d], size)
		}
	}
	return all, errs
}

// reachOf is reach for one pin. One whose tag is gone, for now, holds nothing.
func (s *Store) reachOf(pin Pin, rec records.PinRecord) (map[digest.Digest]int64, error) {
	all := make(map[digest.Digest]int64)
	err := s.walkPin(pin, func(d digest.Digest, known bool) error {
		if it, here := s.recency.Get(d); here {
			all[d] = it.Bytes
			return nil
		}
		size, manifest, err := s.announced(pin.Repository, d)
		if manifest && !known && !rec.AllPlatforms {
			size = 0 // most platforms of an index are never fetched
		}
		all[d] = disk.Charge(size)
		return err
	})
	return all, err
}

// walkPin visits all that a pin reaches, each once. What is known has a record:
// it is here, or was.
func (s *Store) walkPin(pin Pin, visit func(d digest.Digest, known bool) error) error {
	root, err := s.index.Resolve(pin)
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
		rec, err := s.index.Blob(d)
		known := err == nil
		if known && rec.MediaType != "" && !rec.IsManifest() { // the index was lost, and is not yet whole
			_, rec, _ = s.adopt(d, rec.MediaType)
		}
		err = errors.Join(disk.IgnoreMissing(err), visit(d, known))
		if depth > 0 {
			for _, child := range rec.Children {
				err = errors.Join(err, walk(child, depth-1))
			}
		}
		return err
	}
	if err == nil {
		err = walk(root, maxDepth)
	}
	if err != nil {
		return fmt.Errorf("find what is pinned by %s: %w", pin, err)
	}
	return nil
}

// announced is the size of a blob of a repository by the manifest that names it, 0
// where none does, and whether it is a manifest itself.
func (s *Store) announced(repo Repository, d digest.Digest) (size int64, manifest bool, err error) {
	rec, err := s.index.Member(repo, d)
	return max(rec.Size, 0), rec.Manifest, disk.IgnoreMissing(err)
}

// isPinned reports whether an image is pinned by one of its names.
func isPinned(img ImageInfo, pins map[Pin]records.PinRecord) bool {
	_, byTag := pins[Pin{Repository: img.repo(), Reference: img.Tag}]
	_, byDigest := pins[Pin{Repository: img.repo(), Reference: img.Digest.String()}]
	return byTag || byDigest
}

func sum(sizes map[digest.Digest]int64) int64 {
	var n int64
	for _, size := range sizes {
		n += size
	}
	return n
}
