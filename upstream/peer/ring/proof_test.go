package ring_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/peer/ring"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// node is a listener that says who it is to all that have proved the key, and a dialer.
type node struct {
	ring *ring.Ring
	in   *upstreamtest.Pipes
}

func start(t *testing.T, keys ...ring.Key) *node {
	t.Helper()
	id, err := ring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{ring: ring.New(keys...), in: upstreamtest.NewPipes()}
	l := ring.Listen(n.in, n.ring, id, new(upstreamtest.Log).Logger())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, io.LimitReader(conn, 5))
			}()
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return n
}

// greet connects from one node to another, and returns what comes back.
func (n *node) greet(ctx context.Context, to *node) (string, error) {
	d := ring.Dialer{Ring: n.ring, Connect: to.in.Dial}
	conn, err := d.Dial(ctx, "tcp", "peer:1")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return "", err
	}
	answer := make([]byte, 5)
	_, err = io.ReadFull(conn, answer)
	return string(answer), err
}

func TestNodesWithAKeyInCommonConnect(t *testing.T) {
	a, b, c := ring.NewKey(), ring.NewKey(), ring.NewKey()
	for name, test := range map[string]struct {
		client, server []ring.Key
		ok             bool
	}{
		"the same":                  {[]ring.Key{a}, []ring.Key{a}, true},
		"the client's second":       {[]ring.Key{b, a}, []ring.Key{a}, true},
		"the server's second":       {[]ring.Key{a}, []ring.Key{b, a}, true},
		"in another order":          {[]ring.Key{a, b}, []ring.Key{b, a}, true},
		"another":                   {[]ring.Key{a}, []ring.Key{b}, false},
		"none of two":               {[]ring.Key{a, c}, []ring.Key{b}, false},
		"the client has none":       {nil, []ring.Key{a}, false},
		"the server has none":       {[]ring.Key{a}, nil, false},
		"the server has none, late": {[]ring.Key{a, b}, []ring.Key{c}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, err := start(t, test.client...).greet(t.Context(), start(t, test.server...))
				switch {
				case test.ok && (err != nil || answer != "hello"):
					t.Errorf("got %q and %v", answer, err)
				case !test.ok && !errors.Is(err, ring.ErrStranger):
					t.Errorf("got %v, want ErrStranger", err)
				}
			})
		})
	}
}

func TestRotationLosesNobodyAtAnyStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := ring.NewKey(), ring.NewKey()
		steps := [][]ring.Key{{before}, {before, after}, {after, before}, {after}}
		for i := 1; i < len(steps); i++ { // some nodes are a step ahead
			late, early := start(t, steps[i-1]...), start(t, steps[i]...)
			for _, way := range [][2]*node{{late, early}, {early, late}} {
				if _, err := way[0].greet(t.Context(), way[1]); err != nil {
					t.Errorf("step %d: %v", i, err)
				}
			}
			late.ring.Change(steps[i])
			if _, err := late.greet(t.Context(), early); err != nil {
				t.Errorf("step %d, done: %v", i, err)
			}
		}
	})
}

// A process in the middle that has no key cannot pass proofs on, as each connection has its own.
func TestProofOfAnotherConnectionIsNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := ring.NewKey()
		server, client := start(t, key), start(t, key)
		id := certificate(t)
		middle := func(ctx context.Context, network, addr string) (net.Conn, error) {
			mine, theirs := net.Pipe()
			out, err := server.in.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			in := tls.Server(theirs, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id}, NextProtos: []string{"larder-peer/1"}})
			onward := tls.Client(out, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"larder-peer/1"}})
			go func() { _, _ = io.Copy(onward, in); out.Close(); theirs.Close() }()
			go func() { _, _ = io.Copy(in, onward); out.Close(); theirs.Close() }()
			return mine, nil
		}
		d := ring.Dialer{Ring: client.ring, Connect: middle}
		if conn, err := d.Dial(t.Context(), "tcp", "peer:1"); !errors.Is(err, ring.ErrStranger) {
			t.Errorf("got %v and %v", conn, err)
		}
	})
}

func TestStrangerHearsNothing(t *testing.T) {
	for name, send := range map[string]string{
		"nothing":         "",
		"a request":       "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"zero proofs":     "\x00",
		"too many proofs": "\xff",
		"half a proof":    "\x01abc",
		"a wrong proof":   "\x01" + string(make([]byte, 32)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := start(t, ring.NewKey())
				raw, err := server.in.Dial(t.Context(), "tcp", "peer:1")
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"larder-peer/1"}})
				_, _ = io.WriteString(conn, send)
				began := time.Now()
				if got, _ := io.ReadAll(conn); len(got) > 0 {
					t.Errorf("heard %q", got)
				}
				if waited := time.Since(began); waited > 5*time.Second {
					t.Errorf("the connection was open for %v", waited)
				}
			})
		})
	}
}

// One address cannot keep the others out by connections on which it sends nothing.
func TestSilentConnectionsOfOneAddressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := ring.NewKey()
		server := start(t, key)
		closed := 0
		for range 100 {
			raw, err := server.in.Dial(t.Context(), "tcp", "peer:1")
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			synctest.Wait()
			_ = raw.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := raw.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				closed++
			}
		}
		if closed != 100-64 {
			t.Errorf("%d of 100 silent connections were closed at once", closed)
		}
		<-time.After(5 * time.Second)
		synctest.Wait()
		if _, err := start(t, key).greet(t.Context(), server); err != nil {
			t.Errorf("after the silent ones were closed: %v", err)
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := upstreamtest.NewPipes()
		defer silent.Close()
		go func() {
			conn, err := silent.Accept()
			if err == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		began := time.Now()
		d := ring.Dialer{Ring: ring.New(ring.NewKey()), Connect: silent.Dial}
		if _, err := d.Dial(ctx, "tcp", "peer:1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 250*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// certificate makes a certificate as anybody can make one.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
