package frontend

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Fault is something that goes wrong. On, Digest and Operation select the requests
// that it acts on; the other fields say what goes wrong, all at once where that is
// possible. Positions are pointers, so that nil means never: CutAfter:
// new(int64(1000)).
type Fault struct {
	On     Op
	Digest digest.Digest // of the blob or manifest, also one requested by tag; any if empty
	// Operation is one of the ECR API or STS, such as GetAuthorizationToken; any if empty.
	Operation string

	Skip  int // leaves the first matching requests alone
	Every int // acts on every nth matching request after those; on each one if 0
	Times int // acts on at most so many requests; on all if 0

	// Notify, if set, is called each time the fault acts, when the request has
	// arrived and before anything else happens to it.
	Notify func() `json:"-"`

	Delay  time.Duration // before the answer, in addition to the latency
	Hang   bool          // no answer until the fault is removed; then the usual one
	Refuse bool          // closes the connection without an answer

	// Status, if not 0, replaces the answer, with Body.
	Status int
	Body   string
	// Code, if not empty, replaces the answer by an error in the form of the requested
	// protocol, with Message, and with Status, or 400 if that is 0.
	Code, Message string
	// Throttle answers as AWS does to a client that sends too many requests:
	// ThrottlingException from the ECR API, 429 from the registry, 503 SlowDown from
	// storage.
	Throttle bool
	// Header is set on the answer, whatever its status. A name without values removes
	// the header.
	Header http.Header

	StallAfter *int64 // bytes of the body, after which nothing comes until the fault is removed
	CutAfter   *int64 // bytes of the body, after which the connection is closed
	FlipBit    *int64 // offset of the byte, in the blob or manifest, whose lowest bit is flipped
	NoRange    bool   // storage ignores Range
}

// matches reports whether the fault is about a request.
func (f Fault) matches(of Subject) bool {
	return f.On&of.Op != 0 &&
		(f.Digest == "" || f.Digest == of.Content) &&
		(f.Operation == "" || f.Operation == of.Operation)
}

// error returns the error that the fault answers a request with, if it does.
func (f Fault) error(op Op) (e Error, ok bool) {
	switch {
	case f.Throttle:
		return Throttled(op), true
	case f.Code != "":
		return Error{cmp.Or(f.Status, http.StatusBadRequest), f.Code, f.Message}, true
	default:
		return Error{}, false
	}
}

// faults are the injected faults, in order.
type faults struct {
	mu   sync.Mutex // guards list, and seen and acted of each element
	list []*injected
}

// injected is a fault with its counts.
type injected struct {
	Fault
	removed chan struct{} // closed by remove
	seen    int           // requests that matched
	acted   int           // requests it acted on
}

// inject adds a fault and returns a function that removes it.
func (f *faults) inject(fault Fault) (remove func()) {
	in := &injected{Fault: fault, removed: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, in)
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.list = slices.DeleteFunc(f.list, func(other *injected) bool { return other == in })
		f.mu.Unlock()
		close(in.removed)
	})
}

// next returns the fault that acts on a request, and a channel that is closed when
// the fault is removed. The zero Fault does nothing.
func (f *faults) next(of Subject) (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.list {
		if !in.matches(of) || in.Times > 0 && in.acted == in.Times {
			continue
		}
		in.seen++
		if n := in.seen - in.Skip; n > 0 && n%max(in.Every, 1) == 0 {
			in.acted++
			return in.Fault, in.removed
		}
	}
	return Fault{}, nil
}
