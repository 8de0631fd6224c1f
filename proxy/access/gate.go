package access

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"
)

// Options are the settings of a [Gate].
type Options struct {
	// Key is that of the hashes.
	Key Key
	// File is where decisions are kept for the next process; "" means nowhere.
	File string
	// Recheck is how long a yes holds before the upstream is asked again.
	Recheck time.Duration
	// Offline is how long a yes holds, since it was last confirmed, while the upstream cannot
	// be asked.
	Offline time.Duration
	// Negative is how long a no holds.
	Negative time.Duration
	// Log is where the gate reports. Nil means slog.Default().
	Log *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// maxDecisions bounds the decisions that are remembered: for 100 clients of 100 repositories
// there are 10,000.
const maxDecisions = 16384

// Gate knows which clients may have what, as the upstreams say. It is safe for concurrent use.
type Gate struct {
	opts    Options
	now     func() time.Time
	log     *slog.Logger
	tokens  *lru.Cache[tokenID, Grant]
	strikes *strikes
	flights singleflight.Group
	file    sync.Mutex // serializes writes of the file
	changed atomic.Bool

	mu        sync.Mutex // guards what follows
	decisions *simplelru.LRU[subject, decision]
	accepted  *accepted
	forgets   int       // counts the calls of Forget
	forgot    time.Time // the last of them
}

// New returns a gate with what an earlier process has remembered. [Gate.Run] keeps that up to
// date.
func New(opts Options) *Gate {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	tokens, _ := lru.New[tokenID, Grant](maxTokens) // these fail only for a size that is not positive
	decisions, _ := simplelru.NewLRU[subject, decision](maxDecisions, nil)
	g := &Gate{opts: opts, now: opts.Now, log: opts.Log, tokens: tokens, decisions: decisions, accepted: newAccepted(), strikes: newStrikes()}
	if opts.File == "" {
		return g
	}
	known, err := load(opts.File, opts.Key)
	if err != nil {
		g.log.Warn("what the upstreams said about clients is not remembered; they are asked again", "error", err)
	}
	for s, d := range known {
		g.decisions.Add(s, d)
	}
	return g
}

// saveEvery is how often changed decisions are written. One that is lost is asked again.
const saveEvery = 10 * time.Second

// Run keeps the file up to date until ctx ends.
func (g *Gate) Run(ctx context.Context) {
	if g.opts.File == "" {
		return
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.save()
		case <-ctx.Done():
			g.save()
			return
		}
	}
}

// save writes the decisions that are a yes, if any has changed.
func (g *Gate) save() {
	g.file.Lock()
	defer g.file.Unlock()
	if g.opts.File == "" || !g.changed.Swap(false) {
		return
	}
	all := make(map[subject]decision)
	g.mu.Lock()
	for _, s := range g.decisions.Keys() {
		if d, _ := g.decisions.Peek(s); !d.confirmed.IsZero() && g.now().Sub(d.confirmed) < max(g.opts.Offline, g.opts.Recheck) {
			all[s] = d
		}
	}
	g.mu.Unlock()
	if err := save(g.opts.File, g.opts.Key, all); err != nil {
		g.changed.Store(true)
		g.log.Warn("what the upstreams said about clients is not kept for the next start", "error", err)
	}
}
