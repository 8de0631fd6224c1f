package pins

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// addConfigured adds the pins of the configuration to those of commands.
func (p *Pins) addConfigured(pins map[records.Pin]records.PinRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pin, rec := range p.configured.pins {
		rec.AllPlatforms = rec.AllPlatforms || pins[pin].AllPlatforms
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

// matching returns the images in the cache that the configuration pins.
func (p *Pins) matching(ctx context.Context) ([]records.Pin, error) {
	if p.Match == nil {
		return nil, nil
	}
	var pins []records.Pin
	err := p.Index.EachTag(func(repo records.Repository, tag string, _ records.Tag) error {
		if pin := (records.Pin{Repository: repo, Reference: tag}); p.Match(pin.String()) {
			pins = append(pins, pin)
		}
		return ctx.Err()
	})
	return pins, err
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
	rec := records.PinRecord{Since: p.Now(), AllPlatforms: p.AllPlatforms}
	own, err := p.reachOf(pin, rec)
	if err != nil {
		p.Log.Warn("an image that the configuration pins may be evicted", "image", pin, "error", err)
	}
	before, added := p.bytesWith(own)
	if err := p.Space.CheckPins(before, before+added); err != nil {
		if p.refuse(pin) {
			p.Log.Warn("an image that the configuration pins is not pinned: it does not fit", "image", pin, "error", err)
		}
		return
	}
	p.accept(pin, rec, own)
	p.signal()
}

// bytesWith returns how many bytes the pins hold, and how many more they would hold with
// these.
func (p *Pins) bytesWith(own map[digest.Digest]int64) (before, added int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, size := range own {
		added += max(size-p.digests[d], 0)
	}
	return p.bytes, added
}

func (p *Pins) accept(pin records.Pin, rec records.PinRecord, own map[digest.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configured.pins == nil {
		p.configured.pins = make(map[records.Pin]records.PinRecord)
	}
	if p.names == nil {
		p.names, p.digests = make(map[records.Pin]records.PinRecord), make(map[digest.Digest]int64)
	}
	p.configured.pins[pin] = rec
	delete(p.configured.refused, pin)
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
