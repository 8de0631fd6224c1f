package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Pin is an image that is never evicted.
type Pin struct {
	Repository
	Reference string // a tag or a digest
}

func (p Pin) String() string { return imageName(p.Repository, p.Reference) }

const pinPrefix = "pin/"

func pinKey(p Pin) []byte { return []byte(pinPrefix + p.String()) }

type pinRecord struct {
	Since time.Time `json:"since"`
}

// pinned is what the pins hold, for eviction to pass over. The zero value holds
// nothing. The index is what counts: who changes there what pins reach calls
// Store.repin afterwards.
type pinned struct {
	rebuild sync.Mutex // held by who finds out what follows anew, during I/O

	mu      sync.Mutex // guards what follows
	names   map[Pin]bool
	digests map[digest.Digest]int64 // the closures: what each of them takes on disk, now or once it is fetched
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
	return p.names[pin]
}

// Pin keeps an image that is in the cache from eviction: all of it that is here,
// what of it is fetched later, and what its tag moves to. It returns
// fs.ErrNotExist where the repository is not known to have the image, and
// ENOSPC, with the arithmetic, where the cache cannot hold it beside the others.
func (s *Store) Pin(repo Repository, reference string) error {
	pin := Pin{repo, reference}
	if err := s.awaitScan(); err != nil {
		return err
	}
	s.evicting.Lock() // or what is pinned may be on its way out
	defer s.evicting.Unlock()
	s.pinned.rebuild.Lock()
	defer s.pinned.rebuild.Unlock()
	if _, err := s.index.root(pin); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pin %s: %w", pin, errNoImage)
	} else if err != nil {
		return err
	}
	pins, err := s.index.pins()
	if err != nil {
		return err
	}
	if pins[pin] {
		return nil
	}
	before, err := s.reach(pins)
	if err != nil {
		return err
	}
	pins[pin] = true
	after, err := s.reach(pins)
	if err != nil {
		return err
	}
	if err := s.space.holds(sum(before), sum(after)); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	if err := s.index.put(entry{pinKey(pin), pinRecord{Since: s.opts.Now()}}); err != nil {
		return err
	}
	s.pinned.set(pins, after)
	return nil
}

// Unpin lets an image be evicted again. It returns fs.ErrNotExist where it was
// not pinned.
func (s *Store) Unpin(repo Repository, reference string) error {
	pin := Pin{repo, reference}
	var rec pinRecord
	if err := s.index.get(pinKey(pin), &rec); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin %s: %w", pin, errNotPinned)
	}
	if err := s.index.remove(pinKey(pin)); err != nil {
		return err
	}
	return s.repin()
}

// Pins returns what is pinned, in no order.
func (s *Store) Pins() ([]Pin, error) {
	pins, err := s.index.pins()
	var all []Pin
	for pin := range pins {
		all = append(all, pin)
	}
	return all, err
}

// repin finds out anew what the pins hold. One at a time, each from a look at the
// index that is later than its caller's change.
func (s *Store) repin() error {
	s.pinned.rebuild.Lock()
	defer s.pinned.rebuild.Unlock()
	pins, err := s.index.pins()
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
		all, _ := s.index.children(d)
		return all
	}
	for _, d := range descend(left, parts) {
		s.recency.pass(d)
	}
}

// manifestKept says that a manifest is here with what it names.
func (s *Store) manifestKept(d digest.Digest) {
	s.pinned.rebuild.Lock() // a repin that began before has seen nothing of it
	held := s.pinned.holds(d)
	s.pinned.rebuild.Unlock()
	if held {
		s.repinOrWarn()
	}
}

// tagMoved says that a tag has a new record.
func (s *Store) tagMoved(repo Repository, tag string) {
	s.pinned.rebuild.Lock()
	named := s.pinned.has(Pin{repo, tag})
	s.pinned.rebuild.Unlock()
	if named {
		s.repinOrWarn()
	}
}

func (s *Store) repinOrWarn() {
	if err := s.repin(); err != nil {
		s.log.Warn("what is pinned may be evicted", "error", err)
	}
}

func (p *pinned) set(names map[Pin]bool, digests map[digest.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.digests = names, digests
}

// evictable is what everything takes that is not pinned.
func (s *Store) evictable() int64 {
	left := s.recency.total()
	s.pinned.mu.Lock()
	defer s.pinned.mu.Unlock()
	for d := range s.pinned.digests {
		it, _ := s.recency.look(d)
		left -= it.bytes
	}
	return left
}

// pass moves an item that eviction may not take out of its way, without calling
// it used.
func (r *recency) pass(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.order.Get(d)
	r.doomed.Remove(d)
}

// reach returns all that the pins hold, and what it takes on disk. What is not
// here counts where a manifest that is here tells its size. With an error comes
// what could be read.
func (s *Store) reach(pins map[Pin]bool) (map[digest.Digest]int64, error) {
	all := make(map[digest.Digest]int64)
	var errs error
	for pin := range pins {
		root, err := s.index.root(pin)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its tag is gone, for now
		}
		if err == nil {
			err = s.reachFrom(pin.Repository, root, maxDepth, all)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("find what is pinned by %s: %w", pin, err))
		}
	}
	return all, errs
}

func (s *Store) reachFrom(repo Repository, d digest.Digest, depth int, all map[digest.Digest]int64) error {
	if _, again := all[d]; again {
		return nil
	}
	var err error
	if it, here := s.recency.look(d); here {
		all[d] = it.bytes
	} else {
		all[d], err = s.index.announced(repo, d)
	}
	if depth == 0 {
		return err
	}
	var rec blobRecord
	err = errors.Join(err, ignoreMissing(s.index.get(blobKey(d), &rec)))
	for _, child := range rec.Children {
		err = errors.Join(err, s.reachFrom(repo, child, depth-1, all))
	}
	return err
}

// announced is what a blob of a repository will take on disk, by the manifest
// that names it. Manifests of an index count once they are here: most platforms
// are never fetched.
func (ix *index) announced(repo Repository, d digest.Digest) (int64, error) {
	var rec memberRecord
	err := ix.get(memberKey(repo, d), &rec)
	switch {
	case errors.Is(err, fs.ErrNotExist), rec.Manifest, rec.Size < 0:
		return 0, ignoreMissing(err)
	}
	return onDisk(rec.Size), err
}

// root is the manifest that a pin begins at. It is fs.ErrNotExist where the tag
// has no record, and where the digest is not a manifest of the repository.
func (ix *index) root(p Pin) (digest.Digest, error) {
	if strings.Contains(p.Reference, ":") {
		d := digest.Digest(p.Reference)
		var rec memberRecord
		err := ix.get(memberKey(p.Repository, d), &rec)
		if err == nil && !rec.Manifest {
			err = fs.ErrNotExist
		}
		return d, err
	}
	var rec tagRecord
	err := ix.get(tagKey(p.Repository, p.Reference), &rec)
	return rec.Digest, err
}

// pins reads the pins.
func (ix *index) pins() (map[Pin]bool, error) {
	pins := make(map[Pin]bool)
	err := ix.each(pinPrefix, func(item *badger.Item) error {
		name := string(item.Key()[len(pinPrefix):])
		repo, reference, ok := strings.Cut(name, "@")
		if !ok {
			i := max(strings.LastIndexByte(name, ':'), 0)
			repo, reference = name[:i], strings.TrimPrefix(name[i:], ":")
		}
		pins[Pin{cutRepository(repo), reference}] = true
		return nil
	})
	return pins, err
}

// isPinned reports whether an image is pinned by one of its names.
func isPinned(img ImageInfo, pins map[Pin]bool) bool {
	return pins[Pin{img.repo(), img.Tag}] || pins[Pin{img.repo(), img.Digest.String()}]
}

// holds returns ENOSPC where the pins would take more than the bound.
func (sp *space) holds(before, after int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if room := sp.most - sp.overhead; sp.most > 0 && after > room {
		return fmt.Errorf("%d bytes beside the %d that are pinned make %d, and %d of max_size, less %d for the index, leave %d: %w",
			after-before, before, after, sp.most, sp.overhead, room, unix.ENOSPC)
	}
	return nil
}

func sum(sizes map[digest.Digest]int64) int64 {
	var n int64
	for _, size := range sizes {
		n += size
	}
	return n
}
