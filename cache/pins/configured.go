package pins

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// addConfigured adds the pins of the configuration to those of commands.
func (p *Pins) addConfigured(pins map[records.Pin]records.PinRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pin, rec := range p.configured.pins {
		rec.AllPlatforms = rec.AllPlatforms || pins[pin].AllPlatforms
		rec.Bundle = pins[pin].Bundle
		pins[pin] = rec
	}
}

// IsConfigured reports whether the configuration pins an image that is in the cache.
func (p *Pins) IsConfigured(pin records.Pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.configured.pins[pin]
	return ok
}

// matching returns the images that the configuration pins: tags that are in the cache, and the
// digests that are kept.
func (p *Pins) matching(ctx context.Context) ([]records.Pin, error) {
	if p.Match == nil && p.Keep == nil {
		return nil, nil
	}
	var pins []records.Pin
	err := p.Index.EachTag(func(repo records.Repository, tag string, _ records.Tag) error {
		if pin := (records.Pin{Repository: repo, Reference: tag}); p.isMatch(pin) {
			pins = append(pins, pin)
		}
		return ctx.Err()
	})
	if p.KeptDigests != nil {
		for _, d := range p.KeptDigests() {
			pins = append(pins, records.Pin{Repository: d.Repository, Reference: d.Digest.String()})
		}
	}
	return pins, err
}

// isMatch reports whether the configuration pins an image once it is in the cache.
func (p *Pins) isMatch(pin records.Pin) bool { return p.isKept(pin) || p.isPattern(pin) }

func (p *Pins) isKept(pin records.Pin) bool { return p.Keep != nil && p.Keep(pin.String()) }

func (p *Pins) isPattern(pin records.Pin) bool { return p.Match != nil && p.Match(pin.String()) }

// AddKept pins an image that is being brought, or has been, until RemoveKept. It counts as far
// as its manifests are in the cache. It returns ENOSPC with the arithmetic if the cache cannot
// hold it beside the others. The caller lets nothing be evicted meanwhile.
func (p *Pins) AddKept(pin records.Pin) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	return p.addKept(pin)
}

// addKept is AddKept for a caller that has locked p.changing.
func (p *Pins) addKept(pin records.Pin) error {
	rec := records.PinRecord{Since: p.Now()}
	own, err := p.reachOf(pin, rec)
	if err != nil {
		return err
	}
	before, added := p.BytesWith(own)
	if err := p.Space.CheckPins(before, before+added); err != nil {
		return fmt.Errorf("keep %s: %w", pin, err)
	}
	p.accept(pin, rec, own)
	p.signal()
	return nil
}

// RemoveKept undoes AddKept. What the configuration pins, or a kept tag is to name, stays pinned.
func (p *Pins) RemoveKept(pin records.Pin) {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.removeKept(pin)
}

// removeKept is RemoveKept for a caller that has locked p.changing.
func (p *Pins) removeKept(pin records.Pin) {
	if p.isNeeded(pin) {
		return
	}
	p.mu.Lock()
	_, ok := p.configured.pins[pin]
	delete(p.configured.pins, pin)
	p.mu.Unlock()
	if ok {
		p.warn(p.refresh())
	}
}

// admitNew pins an image that has just come and that the configuration pins.
func (p *Pins) admitNew(pin records.Pin) {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	ready := p.configured.ready
	p.mu.Unlock()
	if ready { // else Start is about to see its record
		p.admit(pin)
	}
}

// admit pins an image if it fits, and logs if it does not. The caller has locked
// p.changing.
func (p *Pins) admit(pin records.Pin) {
	rec := records.PinRecord{Since: p.Now(), AllPlatforms: p.AllPlatforms && p.isPattern(pin)}
	own, err := p.reachOf(pin, rec)
	if err != nil {
		p.Log.Warn("an image that the configuration pins may be evicted", "image", pin, "error", err)
	}
	before, added := p.BytesWith(own)
	if err := p.Space.CheckPins(before, before+added); err != nil {
		if p.refuse(pin) {
			p.Log.Warn("an image that the configuration pins is not pinned: it does not fit", "image", pin, "error", err)
		}
		return
	}
	p.accept(pin, rec, own)
	p.signal()
}

func (p *Pins) accept(pin records.Pin, rec records.PinRecord, own map[digest.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configured.pins == nil {
		p.configured.pins = make(map[records.Pin]records.PinRecord)
	}
	p.configured.pins[pin] = rec
	delete(p.configured.refused, pin)
	p.acceptLocked(pin, rec, own)
}

// acceptLocked adds a pin that holds these blobs.
func (p *Pins) acceptLocked(pin records.Pin, rec records.PinRecord, own map[digest.Digest]int64) {
	if p.names == nil {
		p.names, p.digests = make(map[records.Pin]records.PinRecord), make(map[digest.Digest]int64)
	}
	p.names[pin] = rec
	for d, size := range own {
		p.bytes += max(size-p.digests[d], 0)
		p.digests[d] = max(size, p.digests[d])
	}
}

// refuse notes that a pin does not fit, and reports whether that is news.
func (p *Pins) refuse(pin records.Pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configured.refused[pin] {
		return false
	}
	if p.configured.refused == nil {
		p.configured.refused = make(map[records.Pin]bool)
	}
	p.configured.refused[pin] = true
	return true
}
