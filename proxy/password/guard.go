// Package password lets only users of a file in, by HTTP's Basic authentication. The file has
// bcrypt hashes, and is read again when it changes.
//
// A pair of user name and password that was right is remembered as a keyed hash, so that bcrypt
// runs once for it and not for each request. Whoever sends wrong ones is bounded by address, and
// costs nothing beyond that bound. A name that the file does not have takes as long as one that it
// has.
package password

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"

	"github.com/larder-registry/larder/proxy/attempts"
	"github.com/larder-registry/larder/proxy/livefile"
	"github.com/larder-registry/larder/upstream/name"
)

// Challenge is the WWW-Authenticate header of a response for ErrUnauthorized (RFC 7617).
const Challenge = `Basic realm="larder", charset="UTF-8"`

// The errors of [Guard.Check]. They have nothing of the request.
var (
	// ErrUnauthorized is the error of a request without a right user name and password.
	ErrUnauthorized = errors.New("a user name and a password are needed here")
	// ErrMalformed is the error of a request with more than one Authorization header.
	ErrMalformed = errors.New("the request has more than one Authorization header")

	errWrong   = fmt.Errorf("%w, and these are not right", ErrUnauthorized)
	errLimited = fmt.Errorf("%w, and too many wrong ones came from this address: try again in a minute", ErrUnauthorized)
	errBusy    = fmt.Errorf("%w, and too many are being checked: try again", ErrUnauthorized)
)

const (
	// burst is how many wrong passwords an address may try at once, and refill after how long it
	// may try one more: enough for people, and for a node whose pods pull with an old password.
	burst  = 10
	refill = 6 * time.Second
	// maxRight bounds the pairs that are remembered. Those that are used least are forgotten, and
	// cost one comparison more.
	maxRight = 4096
	// patience is how long a request waits for the comparisons of others.
	patience = 5 * time.Second
)

// Guard decides who may come in. Its methods are safe for concurrent use, except that one
// goroutine at a time calls Use.
type Guard struct {
	log     *slog.Logger
	checks  metric.Int64Counter
	key     [sha256.Size]byte // of the hashes in right
	right   *lru.Cache[[sha256.Size]byte, struct{}]
	flights singleflight.Group
	slots   chan struct{} // one for each bcrypt that runs: they leave half of the processors
	wrong   *attempts.Bound

	users                      atomic.Pointer[users]
	*livefile.Follower[string] // of the file: if it is not valid, the users before stay
}

// Open reads the file, which must be valid.
func Open(file string, meter metric.MeterProvider, log *slog.Logger) (*Guard, error) {
	found, err := readFile(file)
	if err != nil {
		return nil, err
	}
	right, err := lru.New[[sha256.Size]byte, struct{}](maxRight)
	if err != nil {
		return nil, err
	}
	checks, err := meter.Meter("github.com/larder-registry/larder/proxy/password").Int64Counter("larder.password.checks",
		metric.WithUnit("{check}"), metric.WithDescription("Checks of user names and passwords of clients that are not remembered."))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	g := &Guard{
		log: log, checks: checks, right: right, wrong: attempts.New(burst, refill),
		slots: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
	}
	g.Follower = livefile.New(file, g.load, func(err error) {
		g.log.Error("the file of users is not valid; the users before stay", "error", err)
	})
	for _, result := range []string{"right", "wrong", "limited"} {
		g.count(result, 0)
	}
	_, _ = rand.Read(g.key[:]) // it never fails
	g.users.Store(found)
	return g, nil
}

// Check returns the name of the user that a request is from, and otherwise ErrUnauthorized or
// ErrMalformed, with the reason.
func (g *Guard) Check(r *http.Request) (user string, err error) {
	if len(r.Header["Authorization"]) > 1 {
		return "", ErrMalformed
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", ErrUnauthorized
	}
	if err := g.check(r, user, password); err != nil {
		return "", err
	}
	return user, nil
}

// check returns nil if a user name and a password are right.
func (g *Guard) check(r *http.Request, user, password string) error {
	hash, known := g.hashOf(user)
	pair := g.mac(user, password, string(hash))
	if _, ok := g.right.Get(pair); ok {
		return nil
	}
	from, _ := name.Network(r.RemoteAddr) // all others count as one client
	result := g.flights.DoChan(from.String()+" "+string(pair[:]), func() (any, error) {
		err := g.compare(from, pair, hash, password, known)
		if err == nil {
			g.right.Add(pair, struct{}{})
		}
		return nil, err
	})
	select {
	case done := <-result:
		return done.Err
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// hashOf returns the hash of a user. A name that the file does not have gets one of the file, always
// the same, so that its check takes as long.
func (g *Guard) hashOf(user string) (hash []byte, known bool) {
	u := g.users.Load()
	if hash, known = u.hashes[user]; known {
		return hash, true
	}
	mac := g.mac(user)
	return u.hashes[u.names[binary.BigEndian.Uint64(mac[:])%uint64(len(u.names))]], false
}

// mac returns a keyed hash of texts.
func (g *Guard) mac(texts ...string) [sha256.Size]byte {
	h := hmac.New(sha256.New, g.key[:])
	for _, text := range texts {
		_ = binary.Write(h, binary.BigEndian, uint64(len(text))) // a hash returns no error
		h.Write([]byte(text))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// compare runs bcrypt, if the address may have it run.
func (g *Guard) compare(from netip.Prefix, pair attempts.ID, hash []byte, password string, known bool) error {
	end, ok := g.wrong.Begin(from, pair)
	if !ok {
		g.count("limited", 1)
		return errLimited
	}
	wrong := false
	defer func() { end(wrong) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-timer.C:
		g.count("limited", 1)
		return errBusy
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	if wrong = err != nil || !known; wrong {
		g.count("wrong", 1)
		return errWrong
	}
	g.count("right", 1)
	return nil
}

func (g *Guard) count(result string, n int64) {
	g.checks.Add(context.Background(), n, metric.WithAttributes(attribute.String("result", result)))
}

// load puts the users of a file to use if they are others.
func (g *Guard) load(file string) error {
	found, err := readFile(file)
	if err != nil || found.sum == g.users.Load().sum {
		return err
	}
	g.users.Store(found)
	g.log.Info("the file of users was read again", "file", file, "users", len(found.names))
	return nil
}
