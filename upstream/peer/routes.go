package peer

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxRoutes bounds the blobs of which it is known where they come from.
const maxRoutes = 4096

// routes remember where the blobs come from that this node is fetching, or has fetched lately.
type routes struct {
	mu   sync.Mutex // guards what follows
	list *simplelru.LRU[string, *route]
}

// route is where one blob comes from.
type route struct {
	// parent is the node that sends it, and path the nodes from there on to the one that has it, or
	// asks the upstream. Both are empty if this one does.
	parent string
	path   []string
	// senders are all that have sent parts, and whether one has said that it has the whole blob.
	senders map[string]bool
}

func newRoutes() *routes {
	list, err := simplelru.NewLRU[string, *route](maxRoutes, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &routes{list: list}
}

// of returns the node that sends a blob, and the way that it takes.
func (r *routes) of(blob string) (parent string, path []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.list.Get(blob); ok {
		return known.parent, known.path
	}
	return "", nil
}

// parent returns the node that sends a blob, or "" if this one asks the upstream. ok is false if nobody has
// asked for the blob yet.
func (r *routes) parent(blob string) (parent string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.list.Get(blob)
	if !ok {
		return "", false
	}
	return known.parent, true
}

// set notes where a blob comes from now. whole says that the parent has all of it.
func (r *routes) set(blob, parent string, path []string, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.list.Get(blob)
	if !ok {
		known = &route{senders: make(map[string]bool)}
		r.list.Add(blob, known)
	}
	known.parent, known.path = parent, path
	if parent != "" {
		known.senders[parent] = known.senders[parent] || whole
	}
}

// end forgets a blob, and returns who has sent it.
func (r *routes) end(blob string) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.list.Peek(blob)
	if !ok {
		return nil
	}
	r.list.Remove(blob)
	return known.senders
}
