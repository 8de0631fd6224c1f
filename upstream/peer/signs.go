package peer

import (
	"context"
	"sync"
	"time"
)

const (
	// Patience is how long a node may give no sign of life before others are asked.
	Patience = 250 * time.Millisecond
	// signEvery is how often a node that asks the upstream says so: three times within Patience.
	signEvery = Patience / 3
	// maxSteps bounds how far a sign travels: a tree of 10,000 nodes with two children each is fourteen deep.
	maxSteps = 16
)

// signs pass signs of life on, from where an upstream is asked for a key to the requests that wait for that.
// The zero value has none. It is safe for concurrent use.
type signs struct {
	mu      sync.Mutex // guards what follows
	waiting map[string]map[chan int]bool
}

// listen returns a channel of the signs for a key: how many steps each has taken. stop ends it.
func (s *signs) listen(key string) (steps <-chan int, stop func()) {
	ch := make(chan int, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		s.waiting = make(map[string]map[chan int]bool)
	}
	if s.waiting[key] == nil {
		s.waiting[key] = make(map[chan int]bool)
	}
	s.waiting[key][ch] = true
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting[key], ch)
		if len(s.waiting[key]) == 0 {
			delete(s.waiting, key)
		}
	}
}

// send tells all that wait for a key, unless the sign has come too far.
func (s *signs) send(key string, steps int) {
	if steps > maxSteps {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.waiting[key] {
		select {
		case ch <- steps:
		default: // one is on its way
		}
	}
}

// during sends signs for a key while ask runs.
func (s *signs) during(key string, ask func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	s.send(key, 0)
	sending.Go(func() {
		tick := time.NewTicker(signEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.send(key, 0)
			case <-ctx.Done():
				return
			}
		}
	})
	defer sending.Wait()
	defer cancel()
	ask()
}
