package ecrtest

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Op is a kind of request, or a set of kinds.
type Op uint

// The kinds of request. All but Storage go to the registry's host.
const (
	API       Op = 1 << iota // the ECR API
	Ping                     // /v2/
	Manifest                 // /v2/<name>/manifests/<reference>
	Blob                     // /v2/<name>/blobs/<digest>, which redirects
	Tags                     // /v2/<name>/tags/list
	Referrers                // /v2/<name>/referrers/<digest>
	Storage                  // a signed URL

	Any = API | Ping | Manifest | Blob | Tags | Referrers | Storage
)

// Fault is something that goes wrong. Which requests it acts on, On and Digest
// say; how, the rest, all of it at once where that makes sense. Positions are
// pointers so that nil is "never": CutAfter: new(int64(1000)).
type Fault struct {
	On     Op
	Digest digest.Digest // of the blob or manifest, a tag's too; any if empty

	Skip  int // how many requests that match are left alone first
	Times int // on how many it acts then; on all if 0

	// Notify, if set, is called each time the fault acts, when the request has
	// come and before anything else happens to it.
	Notify func() `json:"-"`

	Delay  time.Duration // before the answer, on top of the latency
	Hang   bool          // no answer, until the fault is removed; then as usual
	Refuse bool          // the connection is closed without an answer

	// Status, if not 0, is answered in place of what was asked for, with Body.
	Status int
	Body   string
	// Header is set on the answer, whatever its status. A name without values
	// takes the header away.
	Header http.Header

	StallAfter *int64 // bytes of the body, after which nothing comes until the fault is removed
	CutAfter   *int64 // bytes of the body, after which the connection is closed
	FlipBit    *int64 // the offset of the byte, in the blob or manifest, whose lowest bit is wrong
	NoRange    bool   // storage ignores Range
}

// Inject makes a fault act from now on, and returns what ends it: remove also
// releases the requests that hang and the bodies that stall, which then go on
// as if nothing had been. It may be called more than once.
//
// One fault acts on a request: of those that match and are not used up, the
// one injected first.
//
// A client may repeat by itself, and unseen, a request that Refuse or CutAfter
// has broken: Go's does so on a connection that was used before.
func (s *Server) Inject(f Fault) (remove func()) {
	in := &injected{Fault: f, gone: make(chan struct{})}
	s.faults.add(in)
	return sync.OnceFunc(func() {
		s.faults.remove(in)
		close(in.gone)
	})
}

type faults struct {
	mu   sync.Mutex // guards what follows, and the counts of each fault
	list []*injected
}

type injected struct {
	Fault
	gone  chan struct{} // closed by remove
	seen  int           // requests that matched
	acted int           // requests it acted on
}

func (f *faults) add(in *injected) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, in)
}

func (f *faults) remove(in *injected) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(other *injected) bool { return other == in })
}

// take returns the fault that acts on a request, or the zero Fault, which does
// nothing.
func (f *faults) take(op Op, content digest.Digest) (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.list {
		if in.On&op == 0 || in.Digest != "" && in.Digest != content {
			continue
		}
		if in.Times > 0 && in.acted == in.Times {
			continue
		}
		in.seen++
		if in.seen > in.Skip {
			in.acted++
			return in.Fault, in.gone
		}
	}
	return Fault{}, nil
}
