package peer

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/peer/tree"
)

// Answers are what a [Peers.Handler] answers with. All are required.
type Answers struct {
	// Asked answers questions that come from a node itself, and Passed those that a node has passed on because
	// it knows of another owner: as clients are answered, from what this node has or its upstreams.
	Asked, Passed http.Handler
	// Has reports whether content is in the cache, or on its way into it.
	Has func(d digest.Digest) bool
}

// Handler answers other nodes, whose connections have proved the cluster's key.
func (p *Peers) Handler(a Answers) http.Handler { return &handler{p, a} }

type handler struct {
	peers *Peers
	Answers
}

// asked is what a node asks for.
type asked struct {
	from   string // its address
	hops   int
	have   bool
	avoid  []string
	key    string
	digest digest.Digest // "" for a tag
	isBlob bool
}

// ServeHTTP answers one question.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(headerFrom, h.peers.cluster.Self().Content.String())
	if r.URL.Path == helloPath {
		h.hello(w, r)
		return
	}
	q, err := askedOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if q.have && (q.digest == "" || !h.Has(q.digest)) {
		h.refuse(w, q, http.StatusGone)
		return
	}
	if q.isBlob {
		h.blob(w, r, q)
		return
	}
	h.answer(w, r, q)
}

// refuse answers with an error, and says if the upstream could not be asked lately.
func (h *handler) refuse(w http.ResponseWriter, q asked, status int) {
	if why := h.peers.failed.of(q.key); why != "" {
		w.Header().Set(headerUpstream, why)
	}
	w.WriteHeader(status)
}

// blob gives a blob, or passes the question on to a node of the same zone that was given it.
func (h *handler) blob(w http.ResponseWriter, r *http.Request, q asked) {
	p := h.peers
	if p.failed.of(q.key) != "" && !h.Has(q.digest) { // as for all that have asked lately
		h.refuse(w, q, http.StatusServiceUnavailable)
		return
	}
	family := q.key + p.otherZone(q.from)
	verdict, to := p.giver.Ask(tree.Request{Blob: family, Child: q.from, Avoid: q.avoid, Now: time.Now()})
	switch verdict {
	case tree.Pass:
		p.metrics.served(verdict)
		w.Header().Set("Location", "https://"+to+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	case tree.Busy:
		p.metrics.served(verdict)
		h.refuse(w, q, http.StatusServiceUnavailable)
	case tree.Give:
		p.metrics.served(verdict)
		given, whole := true, false
		defer func() {
			if !given {
				p.giver.Failed(family, q.from)
				return
			}
			p.giver.Done(family, q.from, whole, time.Now())
		}()
		given, whole = h.answer(w, r, q)
	}
}

// answer answers a question, with signs of life until there is an answer. It reports whether the node has
// been given something, and the end of what it asked for.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, q asked) (given, whole bool) {
	alive := &living{inner: w, header: make(http.Header), peers: h.peers, asked: q, account: h.peers.ledger.of(q.from)}
	steps, stop := h.peers.signs.listen(q.key)
	ctx, cancel := context.WithCancel(r.Context())
	var signing sync.WaitGroup
	alive.sign(0)
	signing.Go(func() {
		for {
			select {
			case n := <-steps:
				alive.sign(n + 1)
			case <-ctx.Done():
				return
			}
		}
	})
	defer signing.Wait()
	defer cancel()
	defer stop()
	inner := h.Asked
	if q.hops > 0 {
		inner = h.Passed
	}
	inner.ServeHTTP(alive, r.WithContext(ctx))
	return alive.given, alive.given && alive.sent == alive.want && alive.last
}

// askedOf reads a question.
func askedOf(r *http.Request) (asked, error) {
	q := asked{from: r.Header.Get(headerFrom), have: r.Header.Get(headerHave) != ""}
	if _, err := netip.ParseAddrPort(q.from); err != nil {
		return asked{}, fmt.Errorf("the header %s is no address", headerFrom)
	}
	hops, err := strconv.Atoi(r.Header.Get(headerHops))
	if err != nil || hops < 0 {
		return asked{}, fmt.Errorf("the header %s is no number", headerHops)
	}
	q.hops = hops
	if avoid := r.Header.Get(headerAvoid); avoid != "" {
		q.avoid = strings.Split(avoid, ",")[:min(strings.Count(avoid, ",")+1, maxAvoid)]
	}
	rest, reference := cutLast(r.URL.Path)
	rest, kind := cutLast(rest)
	if d := digest.Digest(reference); d.Validate() == nil {
		q.digest = d
	}
	if q.isBlob = kind == "blobs" && q.digest != ""; q.isBlob {
		q.key = reference
		return q, nil
	}
	q.key = name.CanonicalHost(r.URL.Query().Get("ns")) + "/" + strings.TrimPrefix(rest, "/v2/") + "/" + kind + "/" + reference
	return q, nil
}

func cutLast(path string) (before, after string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// living is a ResponseWriter on which signs of life are sent until the answer begins.
type living struct {
	inner   http.ResponseWriter
	peers   *Peers
	asked   asked
	account *account // of the node that asks

	header http.Header // of the answer; the handler's alone
	want   int64       // bytes of the body
	sent   int64       // of them
	last   bool        // they are the end of the content
	given  bool        // the answer is not an error

	mu    sync.Mutex // guards what follows, and inner's header until then
	begun bool
}

// sign sends a sign of life, unless the answer has begun.
func (l *living) sign(steps int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun {
		return
	}
	l.inner.Header().Set(headerSteps, strconv.Itoa(steps))
	l.inner.WriteHeader(statusAlive)
}

// Header is for http.ResponseWriter.
func (l *living) Header() http.Header { return l.header }

// WriteHeader is for http.ResponseWriter.
func (l *living) WriteHeader(status int) {
	l.mu.Lock()
	begun := l.begun
	l.begun = true
	l.mu.Unlock()
	if begun {
		return
	}
	l.inner.Header().Del(headerSteps)
	maps.Copy(l.inner.Header(), l.header)
	if why := l.peers.failed.of(l.asked.key); status >= http.StatusBadRequest && why != "" {
		l.inner.Header().Set(headerUpstream, why)
	}
	if l.asked.isBlob {
		l.inner.Header().Set(headerPath, strings.Join(l.path(), ","))
	}
	l.measure(status)
	l.inner.WriteHeader(status)
}

// path is where the blob comes from.
func (l *living) path() []string {
	self := []string{l.peers.cluster.Self().Content.String()}
	if l.header.Get(headerState) == "HIT" {
		return self
	}
	_, path := l.peers.routes.of(l.asked.key)
	return slices.Concat(self, path)
}

// measure notes what is sent.
func (l *living) measure(status int) {
	l.given = status < http.StatusBadRequest
	l.want, _ = strconv.ParseInt(l.header.Get("Content-Length"), 10, 64)
	switch status {
	case http.StatusOK:
		l.last = true
	case http.StatusPartialContent:
		span, size, _ := strings.Cut(l.header.Get("Content-Range"), "/")
		_, end, _ := strings.Cut(span, "-")
		n, err := strconv.ParseInt(end, 10, 64)
		l.last = err == nil && strconv.FormatInt(n+1, 10) == size
	}
}

// Write is for http.ResponseWriter.
func (l *living) Write(p []byte) (int, error) {
	l.WriteHeader(http.StatusOK)
	n, err := l.inner.Write(p)
	l.gave(int64(n))
	return n, err
}

// ReadFrom is for io.ReaderFrom.
func (l *living) ReadFrom(src io.Reader) (int64, error) {
	l.WriteHeader(http.StatusOK)
	n, err := io.Copy(l.inner, src)
	l.gave(n)
	return n, err
}

// gave notes that bytes of the answer were sent.
func (l *living) gave(n int64) {
	l.sent += n
	l.account.given.Add(n)
	l.peers.metrics.gave(n)
}

// Unwrap is for http.ResponseController.
func (l *living) Unwrap() http.ResponseWriter { return l.inner }
