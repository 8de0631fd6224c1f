package ecrtest

import (
	"cmp"
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
	API         Op = 1 << iota // the ECR API
	Ping                       // /v2/
	Manifest                   // /v2/<name>/manifests/<reference>
	Blob                       // /v2/<name>/blobs/<digest>, which redirects
	Tags                       // /v2/<name>/tags/list
	Referrers                  // /v2/<name>/referrers/<digest>
	Storage                    // a signed URL
	Catalog                    // /v2/_catalog
	STS                        // the API of STS
	Credentials                // the credentials of a container, or of an instance
	Token                      // /token/ of ECR Public

	Any = API | Ping | Manifest | Blob | Tags | Referrers | Storage | Catalog | STS | Credentials | Token
)

// Fault is something that goes wrong. Which requests it acts on, On and Digest
// say; how, the rest, all of it at once where that makes sense. Positions are
// pointers so that nil is "never": CutAfter: new(int64(1000)).
type Fault struct {
	On     Op
	Digest digest.Digest // of the blob or manifest, a tag's too; any if empty
	// Operation is of the ECR API or STS, such as GetAuthorizationToken; any if empty.
	Operation string

	Skip  int // how many requests that match are left alone first
	Every int // of those after them it acts on each so-manieth; on each one if 0
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
	// Code, if not empty, is answered as an error in the form of what was asked
	// for, with Message, and with Status or else 400.
	Code, Message string
	// Throttle answers as AWS does to who asks too often: ThrottlingException from
	// the ECR API, 429 from the registry, 503 SlowDown from storage.
	Throttle bool
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

// subject is what a request is about, as far as that is known before it is
// answered.
type subject struct {
	op        Op
	content   digest.Digest // of a blob or manifest
	operation string        // of an API
}

// take returns the fault that acts on a request, or the zero Fault, which does
// nothing.
func (f *faults) take(of subject) (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.list {
		if !in.matches(of) || in.Times > 0 && in.acted == in.Times {
			continue
		}
		in.seen++
		if n := in.seen - in.Skip; n > 0 && n%max(in.Every, 1) == 0 {
			in.acted++
			return in.Fault, in.gone
		}
	}
	return Fault{}, nil
}

func (f Fault) matches(of subject) bool {
	return f.On&of.op != 0 &&
		(f.Digest == "" || f.Digest == of.content) &&
		(f.Operation == "" || f.Operation == of.operation)
}

// refusal returns the error that the fault answers a request with, or nil.
func (f Fault) refusal(op Op) *refusal {
	switch {
	case f.Throttle:
		return throttled(op)
	case f.Code != "":
		return &refusal{cmp.Or(f.Status, http.StatusBadRequest), f.Code, f.Message}
	default:
		return nil
	}
}

// throttled is what AWS answers to who asks too often.
func throttled(op Op) *refusal {
	switch op {
	case API:
		return &refusal{http.StatusBadRequest, "ThrottlingException", "Rate exceeded"}
	case STS:
		return &refusal{http.StatusBadRequest, "Throttling", "Rate exceeded"}
	case Storage:
		return &refusal{http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."}
	default:
		return &refusal{http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded"}
	}
}

// refuse sends an error in the form of what was asked for.
func (x *exchange) refuse(op Op, r refusal) {
	switch op {
	case API:
		x.replyAPI(r.status, apiError{r.code, r.message})
	case STS:
		x.failSTS(r)
	case Storage:
		x.failStorage(storageError{status: r.status, Code: r.code, Message: r.message})
	case Credentials:
		x.failCredentials(r)
	default:
		x.fail(r.status, r.code, r.message)
	}
}
