package cache

import (
	"errors"

	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// ErrConfigured is returned by [Store.Unpin] for an image that Options.Pin has
// pinned.
var ErrConfigured = errors.New("the configuration pins it (cache.pin), until that is changed")

// configured are the pins that follow from Options.Pin and the tags that are
// here. They are in no index: another configuration means other ones.
type configured struct {
	ready bool // the tags that were here from the start have been looked at
	pins  map[Pin]records.PinRecord
	// refused do not fit. They are looked at again when their tag is confirmed; that
	// it is in vain is said once.
	refused map[Pin]bool
}

// addConfigured adds the pins of the configuration to those of commands.
func (p *pinned) addConfigured(pins map[Pin]records.PinRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pin, rec := range p.configured.pins {
		rec.AllPlatforms = rec.AllPlatforms || pins[pin].AllPlatforms
		pins[pin] = rec
	}
}

func (p *pinned) isConfigured(pin Pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.configured.pins[pin]
	return ok
}

// pinAllConfigured finds out what the pins hold when the store has been opened,
// those of commands first.
func (s *Store) pinAllConfigured() {
	s.repinOrWarn()
	s.pinned.rebuild.Lock()
	defer s.pinned.rebuild.Unlock()
	pins, err := s.matching()
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("images that the configuration pins may be evicted", "error", err)
	}
	for _, pin := range pins {
		s.admit(pin)
	}
	s.pinned.mu.Lock()
	s.pinned.configured.ready = true
	s.pinned.mu.Unlock()
	s.wantLacking()
}

// matching returns the images whose tags are here and that Options.Pin names.
func (s *Store) matching() ([]Pin, error) {
	if s.opts.Pin == nil {
		return nil, nil
	}
	var pins []Pin
	err := s.index.EachTag(func(repo Repository, tag string, _ records.Tag) error {
		if pin := (Pin{Repository: repo, Reference: tag}); s.opts.Pin(pin.String()) {
			pins = append(pins, pin)
		}
		return s.ctx.Err()
	})
	return pins, err
}

// pinAsConfigured pins an image that has just come, if it is to be.
func (s *Store) pinAsConfigured(pin Pin) {
	if s.opts.Pin == nil || !s.opts.Pin(pin.String()) {
		return
	}
	s.pinned.rebuild.Lock()
	defer s.pinned.rebuild.Unlock()
	s.pinned.mu.Lock()
	ready := s.pinned.configured.ready
	s.pinned.mu.Unlock()
	if ready { // else pinAllConfigured is about to see its record
		s.admit(pin)
	}
}

// admit pins an image if that fits, and says where it does not. Its caller holds
// pinned.rebuild, without which nobody changes what the pins hold.
func (s *Store) admit(pin Pin) {
	rec := records.PinRecord{Since: s.opts.Now(), AllPlatforms: s.opts.PinAllPlatforms}
	own, err := s.reachOf(pin, rec)
	if err != nil {
		s.log.Warn("an image that the configuration pins may be evicted", "image", pin, "error", err)
	}
	before, added := s.pinned.with(own)
	if err := s.space.CheckPins(before, before+added); err != nil {
		if s.pinned.refuse(pin) {
			s.log.Warn("an image that the configuration pins is not pinned: it does not fit", "image", pin, "error", err)
		}
		return
	}
	s.pinned.accept(pin, rec, own)
	s.wantLacking()
}

// with returns what the pins hold, in bytes, and by how much these would make it
// more.
func (p *pinned) with(own map[digest.Digest]int64) (before, added int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, size := range own {
		added += max(size-p.digests[d], 0)
	}
	return p.bytes, added
}

func (p *pinned) accept(pin Pin, rec records.PinRecord, own map[digest.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configured.pins == nil {
		p.configured.pins = make(map[Pin]records.PinRecord)
	}
	if p.names == nil {
		p.names, p.digests = make(map[Pin]records.PinRecord), make(map[digest.Digest]int64)
	}
	p.configured.pins[pin] = rec
	delete(p.configured.refused, pin)
	p.names[pin] = rec
	for d, size := range own {
		p.bytes += max(size-p.digests[d], 0)
		p.digests[d] = max(size, p.digests[d])
	}
}

// refuse reports whether that has to be said.
func (p *pinned) refuse(pin Pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configured.refused[pin] {
		return false
	}
	if p.configured.refused == nil {
		p.configured.refused = make(map[Pin]bool)
	}
	p.configured.refused[pin] = true
	return true
}
