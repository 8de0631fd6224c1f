package peer

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// failedFor is how long other nodes are told that an upstream could not be asked for a key, which it is not for them
	// meanwhile. A fill that runs goes on trying.
	failedFor = 2 * time.Second
	// maxFailures bounds what is remembered.
	maxFailures = 4096
	// believed is how many nodes have to say that an upstream cannot be asked before this one does not try by
	// itself: one of them may have no network, or say so of malice.
	believed = 2
)

// Values of headerUpstream: why a node has no answer of its upstream.
const (
	upstreamFailed  = "failed"
	upstreamOffline = "offline" // it must not be asked
)

// failures remember for which keys an upstream could not be asked lately. It is safe for concurrent use.
type failures struct {
	mu   sync.Mutex // guards what follows
	list *simplelru.LRU[string, failure]
}

type failure struct {
	why string // a value of headerUpstream
	at  time.Time
}

func newFailures() *failures {
	list, err := simplelru.NewLRU[string, failure](maxFailures, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &failures{list: list}
}

// note notes how asking the upstream for a key has ended.
func (f *failures) note(ctx context.Context, key string, offline bool, err error) {
	if ctx.Err() != nil {
		return // it says nothing about the upstream
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil || isRefusal(err):
		f.list.Remove(key)
	case offline:
		f.list.Add(key, failure{upstreamOffline, time.Now()})
	default:
		f.list.Add(key, failure{upstreamFailed, time.Now()})
	}
}

// of returns why the upstream could not be asked for a key lately, or "".
func (f *failures) of(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.list.Get(key); ok && time.Since(known.at) < failedFor {
		return known.why
	}
	return ""
}

// isRefusal reports whether an upstream has answered that it does not have something, or does not give it.
func isRefusal(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}
