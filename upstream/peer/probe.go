package peer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// probe finds out whether a node lives while another one is silent, so that two dead nodes cost the patience of one. It
// asks for nothing that the node would have to fetch. A nil probe does nothing.
type probe struct {
	peers  *Peers
	node   string
	cancel context.CancelFunc
	start  *time.Timer
	asking sync.WaitGroup
}

// probe asks a node when the one before it has been silent for a quarter of its patience: nodes answer in far less. The
// node has the rest of that time.
func (p *Peers) probe(ctx context.Context, node string) *probe {
	if node == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &probe{peers: p, node: node, cancel: cancel}
	b.asking.Add(1)
	b.start = time.AfterFunc(p.patience/4, func() {
		defer b.asking.Done()
		b.ask(ctx)
	})
	return b
}

func (b *probe) ask(outer context.Context) {
	ctx, cancel := context.WithTimeoutCause(outer, b.peers.patience*3/4, errSilent)
	defer cancel()
	q := question{method: http.MethodGet, path: helloPath, query: url.Values{}}
	resp, err := b.peers.send(ctx, b.node, q, true, nil, func() {})
	switch {
	case err == nil:
		resp.Body.Close()
	case outer.Err() == nil:
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		b.peers.unanswered(b.node, err)
	}
}

// stop has the node not be asked, if it was not yet.
func (b *probe) stop() {
	if b != nil && b.start.Stop() {
		b.asking.Done()
	}
}

// wait waits until it is known whether the node lives, if it is being asked.
func (b *probe) wait() {
	if b != nil {
		b.stop()
		b.asking.Wait()
	}
}

// end ends the probe.
func (b *probe) end() {
	if b != nil {
		b.cancel()
		b.wait()
	}
}
