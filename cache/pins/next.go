package pins

import (
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/records"
)

// SetNext pins the image that a kept tag is to name once it is whole, beside the one that the tag
// names, until EndNext. It is recorded: a restart pins it again, before anything is evicted. An
// earlier next image of the tag is let go: before, if not all of them fit. It returns ENOSPC as
// AddKept does. The caller lets nothing be evicted meanwhile.
func (p *Pins) SetNext(repo records.Repository, tag string, d digest.Digest) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	id, pin := records.Pin{Repository: repo, Reference: tag}, records.Pin{Repository: repo, Reference: d.String()}
	err := p.addKept(pin)
	if errors.Is(err, unix.ENOSPC) && p.endNext(id, d) {
		err = p.addKept(pin)
	}
	if err != nil {
		return err
	}
	p.endNext(id, d)
	p.noteNext(id, d)
	return p.Index.PutNext(repo, tag, d)
}

// EndNext lets go of the next image of a tag, if it has one: the tag names it now, or is not kept
// any more. The error is about the record, without which a restart pins the image no more.
func (p *Pins) EndNext(repo records.Repository, tag string) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	if !p.endNext(records.Pin{Repository: repo, Reference: tag}, "") {
		return nil
	}
	return p.Index.PutNext(repo, tag, "")
}

// admitNext pins the next images of the tags that are kept. The caller has locked p.changing.
func (p *Pins) admitNext() error {
	return p.Index.EachNext(func(repo records.Repository, tag string, d digest.Digest) error {
		id := records.Pin{Repository: repo, Reference: tag}
		if !p.isKept(id) {
			return nil
		}
		if now, err := p.Index.Resolve(id); err == nil && now == d {
			return nil // the process ended before the record was removed
		}
		p.admit(records.Pin{Repository: repo, Reference: d.String()})
		p.noteNext(id, d)
		return nil
	})
}

func (p *Pins) noteNext(id records.Pin, d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configured.next == nil {
		p.configured.next = make(map[records.Pin]digest.Digest)
	}
	p.configured.next[id] = d
}

// endNext lets go of the next image of a tag, unless that is d. It reports whether it has done so.
// The caller has locked p.changing.
func (p *Pins) endNext(id records.Pin, d digest.Digest) bool {
	p.mu.Lock()
	before := p.configured.next[id]
	if before == "" || before == d {
		p.mu.Unlock()
		return false
	}
	delete(p.configured.next, id)
	p.mu.Unlock()
	p.removeKept(records.Pin{Repository: id.Repository, Reference: before.String()})
	return true
}

// isNeeded reports whether the configuration pins an image, or a kept tag is to name it.
func (p *Pins) isNeeded(pin records.Pin) bool {
	if !strings.Contains(pin.Reference, ":") {
		return p.isMatch(pin)
	}
	p.mu.Lock()
	isNext := false
	for id, d := range p.configured.next {
		isNext = isNext || id.Repository == pin.Repository && d.String() == pin.Reference
	}
	p.mu.Unlock()
	return isNext || p.isKept(pin)
}
