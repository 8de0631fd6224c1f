package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/larder-registry/larder/upstream/peer/ring"
)

// Headers of the answer to a greeting.
const (
	headerKnows   = "Larder-Peer-Knows"   // the node that greets is a member of the cluster for the one that answers
	headerVersion = "Larder-Peer-Version" // the program's
	headerTime    = "Larder-Peer-Time"    // RFC 3339, with nanoseconds
)

// helloPath is that of a greeting.
const helloPath = "/v2/"

// Reasons why a node cannot be greeted, for errors.Is.
var (
	ErrUnreachable = errors.New("it cannot be connected to")
	ErrNoKey       = ring.ErrStranger
	ErrRelease     = errors.New("it does not speak the protocol of this release")
)

// Hello is a node's answer to a greeting.
type Hello struct {
	Version string
	// Knows reports whether the node knows the one that greets it as a member of the cluster.
	Knows bool
	// Ahead is how far the node's clock is ahead of this one's, to within half of the time that the answer took.
	Ahead time.Duration
}

// Greet connects to the node that gives content at an address, proves the cluster's key, and asks for its version, its
// clock and whether it knows self, an address or "". ctx bounds it.
func Greet(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), self, node string) (Hello, error) {
	client := &http.Client{Transport: &http.Transport{DialTLSContext: dial, DisableKeepAlives: true}}
	at := url.URL{Scheme: "https", Host: node, Path: helloPath}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return Hello{}, err
	}
	req.Header.Set(headerFrom, self)
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return Hello{}, fmt.Errorf("greet the peer %s: %w", node, whyNot(err))
	}
	defer resp.Body.Close()
	took := time.Since(began)
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxDocument)) // an answer has no body
	then, err := time.Parse(time.RFC3339Nano, resp.Header.Get(headerTime))
	if err != nil || resp.Header.Get(headerFrom) == "" {
		return Hello{}, fmt.Errorf("greet the peer %s: %w", node, ErrRelease)
	}
	return Hello{
		Version: resp.Header.Get(headerVersion),
		Knows:   resp.Header.Get(headerKnows) != "",
		Ahead:   then.Sub(began.Add(took / 2)),
	}, nil
}

// whyNot returns which of the reasons an error is.
func whyNot(err error) error {
	var network *net.OpError
	var refused *url.Error
	if errors.As(err, &refused) {
		err = refused.Err
	}
	switch {
	case errors.Is(err, ring.ErrStranger):
		return err
	case strings.Contains(err.Error(), "tls: "):
		return fmt.Errorf("%w: %w", ErrRelease, err)
	case errors.As(err, &network), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}

// hello answers a greeting.
func (h *handler) hello(w http.ResponseWriter, r *http.Request) {
	from := r.Header.Get(headerFrom)
	for _, n := range h.peers.cluster.All() {
		if n.Content.String() == from {
			w.Header().Set(headerKnows, "1")
		}
	}
	w.Header().Set(headerVersion, h.peers.cluster.Self().Version)
	w.Header().Set(headerTime, time.Now().Format(time.RFC3339Nano))
	w.WriteHeader(http.StatusNoContent)
}
