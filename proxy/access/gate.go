package access

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/larder-registry/larder/proxy/attempts"
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
}

// Gate knows which clients may have what, as the upstreams say. It is safe for concurrent use.
type Gate struct {
	opts    Options
	log     *slog.Logger
	tokens  *lru.Cache[tokenID, Grant]
	wrong   *attempts.Bound
	flights singleflight.Group
	file    sync.Mutex // serializes writes of the file
	changed atomic.Bool

	mu       sync.Mutex // guards what follows
	answers  *answers
	accepted *accepted
	forgets  int       // counts the calls of Forget
	forgot   time.Time // the last of them
}

// New returns a gate with what an earlier process has remembered. [Gate.Run] keeps that up to
// date.
func New(opts Options) *Gate {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	tokens, _ := lru.New[tokenID, Grant](maxTokens) // fails only for a size that is not positive
	g := &Gate{
		opts: opts, log: opts.Log, tokens: tokens, wrong: attempts.New(burst, refill), answers: newAnswers(), accepted: newAccepted(),
	}
	if opts.File == "" {
		return g
	}
	known, err := load(opts.File, opts.Key)
	if err != nil {
		g.log.Warn("what the upstreams said about clients is not remembered; they are asked again", "error", err)
	}
	for s, one := range known {
		g.answers.allow(s, one)
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
		ended := false
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
		}
		if err := g.save(); err != nil {
			g.log.Warn("what the upstreams said about clients is not kept for the next start", "error", err)
		}
		if ended {
			return
		}
	}
}

// save writes the answers that are a yes, if any has changed.
func (g *Gate) save() error {
	g.file.Lock()
	defer g.file.Unlock()
	if g.opts.File == "" || !g.changed.Swap(false) {
		return nil
	}
	all := make(map[subject]answer)
	now, life := time.Now(), max(g.opts.Offline, g.opts.Recheck)
	g.mu.Lock()
	g.answers.each(func(s subject, one answer, allowed bool) {
		if allowed && now.Sub(one.at) < life {
			all[s] = one
		}
	})
	g.mu.Unlock()
	err := save(g.opts.File, g.opts.Key, all)
	if err != nil {
		g.changed.Store(true)
	}
	return err
}
