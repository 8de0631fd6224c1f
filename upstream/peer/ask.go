package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Headers of requests between nodes, and of their answers.
const (
	headerFrom     = "Larder-Peer"          // the address of the node that asks, or answers
	headerHops     = "Larder-Peer-Hops"     // how many nodes have passed the question on
	headerAvoid    = "Larder-Peer-Avoid"    // where the node was passed on to in vain
	headerHave     = "Larder-Peer-Have"     // answer only from what is here, or on its way here
	headerSteps    = "Larder-Peer-Steps"    // of a sign of life: how far it has come
	headerPath     = "Larder-Peer-Path"     // where the blob comes from: this node, the one that sends it to it, …
	headerUpstream = "Larder-Peer-Upstream" // why there is no answer of the upstream
	headerState    = "X-Cache"              // how the answer came about, as for clients
)

// statusAlive is the status of a sign of life: 102 Processing (RFC 2518, section 10.1).
const statusAlive = http.StatusProcessing

const (
	// maxPasses bounds how often one question is passed on: a tree of 10,000 nodes is fourteen deep.
	maxPasses = 16
	// maxAvoid bounds how often it comes back to the owner because it was passed on in vain.
	maxAvoid = 3
)

var (
	errOther  = errors.New("it does not answer as this release does")
	errSilent = errors.New("it gave no sign of life in time")
	errCircle = errors.New("it gets the blob from this node")
	errGone   = errors.New("it does not have it any more")
	errPasses = errors.New("the question was passed on too often")
)

// question is what a node is asked.
type question struct {
	method string
	path   string
	query  url.Values
	header http.Header
	// key is that of the owner, and of signs of life.
	key string
	// hops is how many nodes have passed the question on.
	hops int
}

// answer is a node's.
type answer struct {
	*http.Response
	from string // its address
}

// whole reports whether the node has all of what it sends.
func (a answer) whole() bool { return a.Header.Get(headerState) == "HIT" }

// statusError is an answer that is of no use: the upstream is asked.
type statusError struct {
	from     string
	status   int
	upstream string // headerUpstream's value
}

func (e statusError) Error() string {
	return fmt.Sprintf("the peer %s answered with %d", e.from, e.status)
}

// hasFailed reports whether a node says that the upstream could not be asked.
func hasFailed(err error) bool {
	var status statusError
	return errors.As(err, &status) && status.upstream == upstreamFailed
}

// ask asks a node, and those that it passes the question on to. The caller closes the answer's body. The
// context ends both. Nodes that do not answer are avoided from then on: c, and next as well, which is the node to ask
// after it, or "".
func (p *Peers) ask(ctx context.Context, c candidate, next string, q question) (answer, error) {
	probe := p.probe(ctx, next)
	defer probe.end()
	var avoid []string
	node := c.address
	at, have := node, c.have
	for range maxPasses {
		a, to, err := p.askOnce(ctx, at, q, have, avoid, probe)
		switch {
		case err == nil && to == "":
			return a, nil
		case err == nil && slices.Contains(avoid, to):
			return answer{}, errPasses
		case err == nil:
			at, have = to, true // it was passed on because it has the blob, or is getting it
		case at == node || ctx.Err() != nil || len(avoid) == maxAvoid || hasFailed(err):
			return answer{}, err
		default:
			avoid = append(avoid, at)
			at, have = node, c.have
		}
	}
	return answer{}, errPasses
}

// askOnce asks one node. to is the node to ask instead.
func (p *Peers) askOnce(outer context.Context, node string, q question, have bool, avoid []string, beside *probe) (a answer, to string, err error) {
	traced, span := p.startSpan(outer, node, q)
	defer func() { answeredSpan(span, a, to, err) }()
	ctx, cancel := context.WithCancelCause(traced)
	quiet := time.AfterFunc(p.patience, func() { cancel(errSilent) })
	resp, err := p.send(ctx, node, q, have, avoid, func() {
		quiet.Reset(p.patience)
		beside.stop()
	})
	quiet.Stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
			err = cause
			beside.wait()
		}
		cancel(nil)
		if outer.Err() == nil {
			p.unanswered(node, err)
		}
		return answer{}, "", fmt.Errorf("ask the peer %s: %w", node, err)
	}
	body := &answerBody{ReadCloser: resp.Body, cancel: cancel, account: p.ledger.of(node)}
	resp.Body = body
	switch {
	case resp.StatusCode == http.StatusTemporaryRedirect:
		to, err = peerOf(resp.Header.Get("Location"))
	case resp.Header.Get(headerFrom) == "":
		err = errOther
	case resp.StatusCode == http.StatusGone && resp.Header.Get(headerUpstream) == "":
		err = errGone
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
		err = statusError{node, resp.StatusCode, resp.Header.Get(headerUpstream)}
	case slices.Contains(pathOf(resp.Header), p.cluster.Self().Content.String()):
		err = errCircle
	}
	if errors.Is(err, errOther) {
		p.unanswered(node, err)
	} else {
		p.avoided.fine(node)
	}
	if err != nil || to != "" {
		resp.Body.Close()
		return answer{}, to, err
	}
	body.span = span
	return answer{resp, node}, "", nil
}

// send sends a question. alive is called for each sign of life, which is passed on.
func (p *Peers) send(ctx context.Context, node string, q question, have bool, avoid []string, alive func()) (*http.Response, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if steps, ok := stepsOf(header); ok && code == statusAlive {
				alive()
				if steps > 0 { // the first one says only that the node is there
					p.signs.send(q.key, steps)
				}
			}
			return nil
		},
	})
	at := url.URL{Scheme: "https", Host: node, Path: q.path, RawQuery: q.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, q.method, at.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, values := range q.header {
		req.Header[name] = values
	}
	req.Header.Set(headerFrom, p.cluster.Self().Content.String())
	req.Header.Set(headerHops, strconv.Itoa(q.hops))
	if len(avoid) > 0 {
		req.Header.Set(headerAvoid, strings.Join(avoid, ","))
	}
	if have {
		req.Header.Set(headerHave, "1")
	}
	injectTrace(ctx, req.Header)
	return p.client.Do(req)
}

// stepsOf returns how far a sign of life has come.
func stepsOf(header textproto.MIMEHeader) (steps int, ok bool) {
	steps, err := strconv.Atoi(header.Get(headerSteps))
	return steps, err == nil && steps >= 0
}

// unanswered notes that a node did not answer.
func (p *Peers) unanswered(node string, err error) {
	var network *url.Error
	if errors.As(err, &network) {
		err = network.Err
	}
	if p.avoided.silent(node, err.Error(), time.Now()) {
		p.log.Info("a peer does not answer; it is not asked for a while", "peer", node, "error", err)
	}
	p.metrics.asked(resultSilent)
}

// peerOf returns the node that a redirect leads to.
func peerOf(location string) (string, error) {
	to, err := url.Parse(location)
	if err != nil || to.Scheme != "https" || to.Port() == "" {
		return "", errors.New("it passes the question on to no node")
	}
	return to.Host, nil
}

// pathOf returns the way that an answer's blob takes.
func pathOf(h http.Header) []string {
	path := h.Get(headerPath)
	if path == "" {
		return nil
	}
	return strings.Split(path, ",")
}

// answerBody is the body of an answer. Closing it ends the request. As with every body of net/http, another goroutine
// may close it to end a Read that waits.
type answerBody struct {
	io.ReadCloser
	cancel  context.CancelCauseFunc
	account *account   // of the node
	span    trace.Span // nil if nobody reads it
	n       atomic.Int64
	over    sync.Once
}

// Read is for io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	b.account.taken.Add(int64(n))
	return n, err
}

// Close is for io.Closer.
func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	b.over.Do(func() {
		if b.span != nil {
			endSpan(b.span, b.n.Load())
		}
	})
	return err
}

// probe finds out whether a node lives while another one is silent, so that two dead nodes cost the patience of one. It
// asks for nothing that the node would have to fetch. A nil probe does nothing.
type probe struct {
	peers  *Peers
	node   string
	cancel context.CancelFunc
	start  *time.Timer
	asking sync.WaitGroup
}

// probe asks a node when the one before it has been silent for a quarter of its patience: nodes answer in far less. The
// node has the rest of that time.
func (p *Peers) probe(ctx context.Context, node string) *probe {
	if node == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &probe{peers: p, node: node, cancel: cancel}
	b.asking.Add(1)
	b.start = time.AfterFunc(p.patience/4, func() {
		defer b.asking.Done()
		b.ask(ctx)
	})
	return b
}

func (b *probe) ask(outer context.Context) {
	ctx, cancel := context.WithTimeoutCause(outer, b.peers.patience*3/4, errSilent)
	defer cancel()
	q := question{method: http.MethodGet, path: helloPath, query: url.Values{}}
	resp, err := b.peers.send(ctx, b.node, q, true, nil, func() {})
	switch {
	case err == nil:
		resp.Body.Close()
	case outer.Err() == nil:
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		b.peers.unanswered(b.node, err)
	}
}

// stop has the node not be asked, if it was not yet.
func (b *probe) stop() {
	if b != nil && b.start.Stop() {
		b.asking.Done()
	}
}

// wait waits until it is known whether the node lives, if it is being asked.
func (b *probe) wait() {
	if b != nil {
		b.stop()
		b.asking.Wait()
	}
}

// end ends the probe.
func (b *probe) end() {
	if b != nil {
		b.cancel()
		b.wait()
	}
}
