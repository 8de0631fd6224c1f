package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/larder-registry/larder/proxy/wholefile"
)

// fileVersion is the version of the file's form. A file of another version is ignored.
const fileVersion = 1

// remembered is the file's content.
type remembered struct {
	Version   int      `json:"version"`
	Decisions []record `json:"decisions"`
	// Denied was added after the first release with this file.
	Denied []deniedRecord `json:"denied,omitempty"`
}

// record is a decision with the basis of its rule.
type record struct {
	Decision
	Basis string `json:"rule_basis"`
}

// deniedRecord is an image that was not allowed, with the basis of its rule.
type deniedRecord struct {
	Denied
	Basis string `json:"rule_basis"`
}

// load reads the decisions of an earlier process.
func (p *Policy) load() {
	if p.opts.File == "" {
		return
	}
	raw, err := os.ReadFile(p.opts.File)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var doc remembered
	if err == nil {
		err = json.Unmarshal(raw, &doc)
	}
	if err != nil {
		p.log.Warn("decisions of policies are not remembered; they are made again", "error", fmt.Errorf("read them: %w", err))
		return
	}
	if doc.Version != fileVersion {
		return
	}
	for _, one := range doc.Decisions {
		if one.Digest.Validate() != nil || one.Result == Unknown {
			continue
		}
		d := one.Decision
		d.basis = one.Basis
		p.known.Add(subject{repository{d.Host, d.Repository}, d.Digest}, &d)
	}
	for _, one := range doc.Denied {
		if one.Digest.Validate() == nil {
			d := denied{one.Denied}
			d.basis = one.Basis
			p.denied.Add(subjectOf(d.image()), d)
		}
	}
}

// saveEvery is how often changed decisions are written. One that is lost is made again.
const saveEvery = 10 * time.Second

// Run keeps the file up to date until ctx ends.
func (p *Policy) Run(ctx context.Context) {
	if p.opts.File == "" {
		return
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.save()
		case <-ctx.Done():
			p.save()
			return
		}
	}
}

// save writes the decisions, if any has changed.
func (p *Policy) save() {
	p.file.Lock()
	defer p.file.Unlock()
	if !p.changed.Swap(false) {
		return
	}
	doc := remembered{Version: fileVersion, Decisions: []record{}}
	p.mu.Lock()
	for _, d := range p.known.Values() { // the latest last, so that the next process forgets the oldest first
		if d.Result != Unknown {
			doc.Decisions = append(doc.Decisions, record{*d, d.basis})
		}
	}
	for _, d := range p.denied.Values() {
		doc.Denied = append(doc.Denied, deniedRecord{d.Denied, d.basis})
	}
	p.mu.Unlock()
	raw, err := json.Marshal(doc)
	if err == nil {
		err = wholefile.Write(p.opts.File, raw, 0o600)
	}
	if err != nil {
		p.changed.Store(true)
		p.log.Warn("decisions of policies are not kept for the next start", "error", err)
	}
}
