package pins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// Settings are what Pins works on, and how.
type Settings struct {
	Folder *disk.Folder
	Index  *records.Index
	Items  *recency.List
	Space  *disk.Space
	// Match says which images the configuration pins, by their names:
	// <upstream>/<repository>:<tag>. Nil means none.
	Match func(image string) bool
	// AllPlatforms makes these pins hold all platforms of an index.
	AllPlatforms bool
	// Keep says which images something else brings whole and follows. They are pinned like
	// those of Match, for the platforms that are brought. Nil means none.
	Keep func(image string) bool
	// KeptDigests lists the images that are kept by a digest. They have no tag by which Start
	// would find them. Nil means none.
	KeptDigests func() []records.RepoDigest
	Now         func() time.Time
	Log         *slog.Logger
}

// Pins are the pins of one store. Its methods may be called from several goroutines at
// once.
type Pins struct {
	Settings
	missing chan struct{} // has a value when Missing may have something new; capacity 1

	changing sync.Mutex // held by the goroutine that changes what follows, during I/O

	mu         sync.Mutex // guards what follows
	names      map[records.Pin]records.PinRecord
	digests    map[digest.Digest]int64 // what they hold: the bytes on disk, now or once it is fetched
	bytes      int64                   // of all of them
	configured configured
	held       map[digest.Digest]held // by a Hold
}

// configured are the pins of the configuration. They are not in the index: another
// configuration means other pins.
type configured struct {
	ready bool // the tags that were in the cache at the start have been looked at
	pins  map[records.Pin]records.PinRecord
	// refused do not fit. They are tried again when their tag is confirmed; that they do
	// not fit is logged once.
	refused map[records.Pin]bool
	// next are the digests that kept tags are to name: see SetNext.
	next map[records.Pin]digest.Digest
}

var (
	// ErrConfigured is returned by Remove for an image that the configuration pins.
	ErrConfigured = errors.New("the configuration pins it (cache.pin or keep), until that is changed")
	// ErrNoImage is returned for an image that the repository is not known to have. It is
	// fs.ErrNotExist.
	ErrNoImage error = missingError("no such image in the cache")

	errNotPinned error = missingError("it is not pinned")
)

// missingError is fs.ErrNotExist with a text for users.
type missingError string

func (e missingError) Error() string { return string(e) }

// Is is for errors.Is.
func (missingError) Is(target error) bool { return target == fs.ErrNotExist }

// New returns pins that hold nothing until Start.
func New(s Settings) *Pins {
	return &Pins{Settings: s, missing: make(chan struct{}, 1), held: make(map[digest.Digest]held)}
}

// Start finds out what the pins hold when the folder has been scanned: first those of
// commands, then those of the configuration.
func (p *Pins) Start(ctx context.Context) {
	p.RefreshOrWarn()
	p.changing.Lock()
	defer p.changing.Unlock()
	pins, err := p.matching(ctx)
	if err != nil && ctx.Err() == nil {
		p.Log.Warn("images that the configuration pins may be evicted", "error", err)
	}
	for _, pin := range pins {
		p.admit(pin)
	}
	p.warn(p.admitNext())
	p.mu.Lock()
	p.configured.ready = true
	p.mu.Unlock()
	p.signal()
}

// Holds reports whether a pin holds a blob.
func (p *Pins) Holds(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.digests[d]
	return ok
}

// Add pins an image that is in the cache. If rec says so, all platforms of an index count:
// an earlier pin of some platforms becomes one of all, and one of a bundle becomes the
// user's. It returns [ErrNoImage], or ENOSPC
// with the arithmetic if the cache cannot hold the image beside the others. The caller lets
// nothing be evicted meanwhile.
func (p *Pins) Add(pin records.Pin, allPlatforms bool) error {
	rec := records.PinRecord{Since: p.Now(), AllPlatforms: allPlatforms}
	p.changing.Lock()
	defer p.changing.Unlock()
	if _, err := p.Index.Resolve(pin); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pin %s: %w", pin, ErrNoImage)
	} else if err != nil {
		return err
	}
	pins, err := p.Index.Pins()
	if err != nil {
		return err
	}
	earlier, ok := pins[pin]
	if ok && (earlier.AllPlatforms || !rec.AllPlatforms) {
		if earlier.Bundle == "" {
			return nil
		}
		rec = earlier
		rec.Bundle = "" // it is the user's from now on
	}
	p.addConfigured(pins)
	before, err := p.reach(pins)
	if err != nil {
		return err
	}
	pins[pin] = rec
	after, err := p.reach(pins)
	if err != nil {
		return err
	}
	if err := p.Space.CheckPins(p.withHeld(before), p.withHeld(after)); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	if err := p.Index.PutPin(pin, rec); err != nil {
		return err
	}
	p.set(pins, after)
	p.signal()
	return nil
}

// AddHeld pins an image together with other changes that write makes, in one step: write gets
// the record of the pin. All blobs of the image, own, are here and protected by a Hold; own
// tells how many bytes each takes on disk. An earlier pin by hand stays one. It returns ENOSPC
// with the arithmetic if the cache cannot hold the image beside the others.
func (p *Pins) AddHeld(pin records.Pin, bundle string, own map[digest.Digest]int64, write func(records.PinRecord) error) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	rec, err := p.Index.Pin(pin)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		rec = records.PinRecord{Since: p.Now(), Bundle: bundle}
	case err != nil:
		return err
	case rec.Bundle != "":
		rec.Bundle = bundle
	}
	before, added := p.BytesWith(own)
	if err := p.Space.CheckPins(before, before+added); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	if err := write(rec); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acceptLocked(pin, rec, own)
	return nil
}

// Remove lets an image be evicted again. It returns fs.ErrNotExist if it was not pinned,
// and [ErrConfigured] if the configuration pins it as well.
func (p *Pins) Remove(pin records.Pin) error {
	configured := p.IsConfigured(pin)
	err := p.Index.RemovePin(pin)
	if err == nil {
		err = p.Refresh()
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

// Info is a pin as commands show it.
type Info struct {
	Image string `json:"image"` // <upstream>/<repository>:<tag> or @<digest>
	// Digest is what the image is here; empty if the tag has no record.
	Digest       digest.Digest `json:"digest,omitempty"`
	AllPlatforms bool          `json:"allPlatforms"`     // not only those that are in the cache
	Configured   bool          `json:"configured"`       // by the configuration
	Bundle       string        `json:"bundle,omitempty"` // that an import took the image from; empty for a pin by hand
}

// List returns all pins, sorted by name.
func (p *Pins) List() ([]Info, error) {
	pins, err := p.All()
	all := make([]Info, 0, len(pins))
	for pin, rec := range pins {
		d, _ := p.Index.Resolve(pin)
		all = append(all, Info{Digest: d, Image: pin.String(), AllPlatforms: rec.AllPlatforms, Configured: p.IsConfigured(pin), Bundle: rec.Bundle})
	}
	slices.SortFunc(all, func(a, b Info) int { return cmp.Compare(a.Image, b.Image) })
	return all, err
}

// All returns the pins of commands and of the configuration.
func (p *Pins) All() (map[records.Pin]records.PinRecord, error) {
	pins, err := p.Index.Pins()
	if err == nil {
		p.addConfigured(pins)
	}
	return pins, err
}

// Refresh finds out anew what the pins hold. One call at a time does so, each from a look at
// the index that is later than its caller's change.
func (p *Pins) Refresh() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	return p.refresh()
}

// refresh is Refresh for a caller that has locked p.changing.
func (p *Pins) refresh() error {
	pins, err := p.All()
	if err != nil {
		return err
	}
	digests, err := p.reach(pins)
	if err != nil { // what is held below a record that could not be read stays held
		p.mu.Lock()
		for d, n := range p.digests {
			digests[d] = max(digests[d], n)
		}
		p.mu.Unlock()
	}
	p.reorder(p.freedBy(digests))
	p.set(pins, digests)
	return err
}

// RefreshOrWarn is Refresh that logs its error.
func (p *Pins) RefreshOrWarn() { p.warn(p.Refresh()) }

func (p *Pins) warn(err error) {
	if err != nil {
		p.Log.Warn("pinned images may be evicted", "error", err)
	}
}

// ManifestKept says that a manifest, and what it names, is in the index now. subject is the
// manifest that it refers to, if any.
func (p *Pins) ManifestKept(d, subject digest.Digest) {
	p.changing.Lock() // a Refresh that began before has not seen the manifest
	held := p.Holds(d) || p.Holds(subject)
	p.changing.Unlock()
	if held {
		p.RefreshOrWarn()
		p.signal()
	}
}

// TagMoved says that a tag has a new record in the index. It may name another manifest than
// before. It reports whether it has called [Pins.Refresh].
func (p *Pins) TagMoved(repo records.Repository, tag string, before, now digest.Digest) (refreshed bool) {
	pin := records.Pin{Repository: repo, Reference: tag}
	p.changing.Lock()
	pinned := p.Has(pin)
	p.changing.Unlock()
	switch {
	case before == now && p.Holds(now): // nothing changes
	case pinned:
		p.RefreshOrWarn()
		p.signal()
		return true
	case p.isMatch(pin):
		p.admitNew(pin)
	}
	return false
}

// freedBy lists what is not protected any more if the pins hold only these blobs.
func (p *Pins) freedBy(digests map[digest.Digest]int64) []digest.Digest {
	p.mu.Lock()
	defer p.mu.Unlock()
	var free []digest.Digest
	for d := range p.digests {
		if _, pinned := digests[d]; !pinned && p.held[d].holds == 0 {
			free = append(free, d)
		}
	}
	return free
}

// reorder puts what is about not to be protected any more in the order of eviction: while it
// was protected, evictions that skipped a part of it may have left an image behind its layers.
func (p *Pins) reorder(free []digest.Digest) {
	children := func(d digest.Digest) []digest.Digest {
		all, _ := p.Index.Children(d)
		return all
	}
	for _, d := range recency.Descend(free, children) {
		p.Items.Skip(d)
	}
}

// Tags returns the pins whose reference is a tag, in no order.
func (p *Pins) Tags() []records.Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	var tags []records.Pin
	for pin := range p.names {
		if !strings.Contains(pin.Reference, ":") {
			tags = append(tags, pin)
		}
	}
	return tags
}

// IsPinned reports whether an image is pinned, also before Start has found out what the pins
// hold.
func (p *Pins) IsPinned(pin records.Pin) bool {
	if p.Has(pin) {
		return true
	}
	p.mu.Lock()
	ready := p.configured.ready
	p.mu.Unlock()
	if !ready && p.isMatch(pin) {
		return true
	}
	_, err := p.Index.Pin(pin)
	return err == nil
}

// Has reports whether an image is pinned.
func (p *Pins) Has(pin records.Pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.names[pin]
	return ok
}

func (p *Pins) set(names map[records.Pin]records.PinRecord, digests map[digest.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.digests, p.bytes = names, digests, sum(digests)
}

func sum(sizes map[digest.Digest]int64) int64 {
	var n int64
	for _, size := range sizes {
		n += size
	}
	return n
}
