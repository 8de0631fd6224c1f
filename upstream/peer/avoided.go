package peer

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// avoidFirst is how long a node is not asked that could not be, and avoidMost the most that it becomes when
	// the node is tried again in vain.
	avoidFirst = 5 * time.Second
	avoidMost  = time.Minute
	// avoidLiar is how long a node is not asked that has sent wrong bytes.
	avoidLiar = 10 * time.Minute
	// maxAvoided bounds what is remembered.
	maxAvoided = 4096
)

// Avoided is a node that is not asked for a while, or not for one blob.
type Avoided struct {
	Address string    `json:"address"`
	Blob    string    `json:"blob,omitempty"` // "" for all
	Why     string    `json:"why"`
	Until   time.Time `json:"until"`
	Lied    bool      `json:"lied,omitempty"`

	times int
}

// avoided are the nodes that are not asked. It is safe for concurrent use.
type avoided struct {
	mu   sync.Mutex // guards what follows
	list *simplelru.LRU[[2]string, Avoided]
}

func newAvoided() *avoided {
	list, err := simplelru.NewLRU[[2]string, Avoided](maxAvoided, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &avoided{list: list}
}

// is reports whether a node is not asked for a blob.
func (a *avoided) is(address, blob string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range [][2]string{{address, ""}, {address, blob}} {
		if known, ok := a.list.Peek(key); ok && now.Before(known.Until) {
			return true
		}
	}
	return false
}

// silent notes that a node could not be asked. It returns whether that is news.
func (a *avoided) silent(address, why string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{address, ""}
	known, _ := a.list.Peek(key)
	if now.Before(known.Until) {
		return false // other requests were on their way when it was noted
	}
	pause := min(avoidFirst<<min(known.times, 10), avoidMost)
	a.list.Add(key, Avoided{Address: address, Why: why, Until: now.Add(pause), times: known.times + 1})
	return known.times == 0
}

// slow notes that a node is of no use for one blob.
func (a *avoided) slow(address, blob, why string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list.Add([2]string{address, blob}, Avoided{Address: address, Blob: blob, Why: why, Until: now.Add(avoidMost)})
}

// lied notes that a node has sent wrong bytes of a blob. sure says that it has no other to blame; otherwise it
// may have passed on what another sent, and is avoided for this blob alone, until that happens again with
// another one. It returns whether it is avoided for all blobs now.
func (a *avoided) lied(address, blob, why string, sure bool, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, known := range a.list.Values() {
		again := known.Address == address && known.Lied && known.Blob != blob && now.Before(known.Until)
		sure = sure || again
	}
	lie := Avoided{Address: address, Blob: blob, Why: why, Until: now.Add(avoidLiar), Lied: true}
	a.list.Add([2]string{address, blob}, lie)
	if sure {
		lie.Blob = ""
		a.list.Add([2]string{address, ""}, lie)
	}
	return sure
}

// fine notes that a node has answered.
func (a *avoided) fine(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.list.Peek([2]string{address, ""}); ok && !known.Lied {
		a.list.Remove([2]string{address, ""})
	}
}

// all returns those that are avoided now.
func (a *avoided) all(now time.Time) []Avoided {
	a.mu.Lock()
	defer a.mu.Unlock()
	some := []Avoided{}
	for _, known := range a.list.Values() {
		if now.Before(known.Until) {
			some = append(some, known)
		}
	}
	return some
}

// nodes returns how many nodes are avoided for all blobs.
func (a *avoided) nodes(now time.Time) (n int) {
	for _, known := range a.all(now) {
		if known.Blob == "" {
			n++
		}
	}
	return n
}
