package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/peer"
	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// badPeer starts a node that has the key and takes part in gossip, and does not behave.
func (z *zone) badPeer(t testing.TB, serve func(l net.Listener)) (address string) {
	t.Helper()
	keys, err := ring.ReadKeys(z.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	m, err := members.Open(members.Options{
		Ring: ring.New(keys...), Bind: netip.AddrPortFrom(at.Addr(), 0), Content: at, Join: []string{z.join}, Zone: "a",
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(l)
	}()
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), l.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-ended
	})
	return at.String()
}

// proving serves nodes that prove the key.
func (z *zone) proving(t testing.TB, h http.HandlerFunc) func(net.Listener) {
	return func(l net.Listener) {
		keys, err1 := ring.ReadKeys(z.keyFile)
		id, err2 := ring.NewIdentity()
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
			return
		}
		marked := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Larder-Peer", l.Addr().String())
			h(w, r)
		})
		server := &http.Server{Handler: marked, ReadHeaderTimeout: time.Minute}
		_ = server.Serve(ring.Listen(l, ring.New(keys...), id, slog.New(slog.DiscardHandler))) // until the listener is closed
		_ = server.Close()
	}
}

func TestBadOwnerCostsAMoment(t *testing.T) {
	sizes := make([]int64, 24) // so that each node owns some
	for i := range sizes {
		sizes[i] = int64(100_000 + i)
	}
	for name, serve := range map[string]func(z *zone, t *testing.T) func(net.Listener){
		"it refuses connections": func(*zone, *testing.T) func(net.Listener) {
			return func(l net.Listener) { l.Close() }
		},
		"it takes connections and says nothing": func(*zone, *testing.T) func(net.Listener) {
			return func(l net.Listener) {
				var conns []net.Conn
				for {
					conn, err := l.Accept()
					if err != nil {
						break
					}
					conns = append(conns, conn)
				}
				for _, conn := range conns {
					conn.Close()
				}
			}
		},
		"it answers nothing": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		},
		"it says that it lives, once": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Larder-Peer-Steps", "0")
				w.WriteHeader(http.StatusProcessing)
				<-r.Context().Done()
			})
		},
		"it is of another release": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Del("Larder-Peer")
				http.NotFound(w, r)
			})
		},
		"it passes everybody on to nobody": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://127.0.0.1:1"+r.URL.RequestURI())
				w.WriteHeader(http.StatusTemporaryRedirect)
			})
		},
		"it passes everybody on to itself": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://"+r.Host+r.URL.RequestURI())
				w.WriteHeader(http.StatusTemporaryRedirect)
			})
		},
		"it breaks off": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(w http.ResponseWriter, r *http.Request) {
				z.wrong(w, r, 100)
				panic(http.ErrAbortHandler)
			})
		},
		"it lies about sizes": func(z *zone, t *testing.T) func(net.Listener) {
			return z.proving(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Range", "bytes 0-99/100")
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(make([]byte, 100))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZone(t)
			for range 3 {
				z.start(t, peerPatience, "")
			}
			z.badPeer(t, serve(z, t))
			z.awaitNodes(t, 4)
			image, bytes := z.addLayers(t, "team/app", sizes...)
			z.ecr.ResetStats()
			z.pullAtOnce(t, "team/app", image)
			if got := z.ecr.Stats().Bytes(); got > bytes*11/10 {
				t.Errorf("%d bytes came from the upstream, and the image has %d", got, bytes)
			}
		})
	}
}

// wrong answers a question about a blob or a manifest with zeros: n of them, and all of them if n is negative.
func (z *zone) wrong(w http.ResponseWriter, r *http.Request, n int64) {
	known, ok := z.sizes.Load(path.Base(r.URL.Path))
	if !ok {
		known = int64(1000)
	}
	size := known.(int64)
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Docker-Content-Digest", path.Base(r.URL.Path))
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", size-1, size))
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set("X-Cache", "HIT")
	w.WriteHeader(http.StatusPartialContent)
	if n < 0 {
		n = size
	}
	_, _ = w.Write(make([]byte, n))
}

// A client that was being sent wrong bytes is cut before the last one, and gets the right ones when it asks again.
func TestPeerThatLiesIsAvoidedAndNamed(t *testing.T) {
	z := newZone(t)
	for range 3 {
		z.start(t, peerPatience, "")
	}
	var lies atomic.Int32
	liar := z.badPeer(t, z.proving(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusServiceUnavailable) // a wrong manifest is found out at once
			return
		}
		lies.Add(1)
		z.wrong(w, r, -1)
	}))
	z.awaitNodes(t, 4)
	sizes := make([]int64, 24)
	for i := range sizes {
		sizes[i] = int64(100_000 + i)
	}
	image, bytes := z.addLayers(t, "team/app", sizes...)
	z.ecr.ResetStats()
	for i, s := range z.nodes {
		cut := 0
		for s.pullWhole(t.Context(), "team/app", image) != nil {
			if cut++; cut == 3 {
				t.Fatalf("node %d does not serve the image:\n%s", i, s.log)
			}
		}
		t.Logf("node %d: cut %d times", i, cut)
	}
	if lies.Load() == 0 {
		t.Fatal("the liar was not asked")
	}
	if got := z.ecr.Stats().Bytes(); got > bytes*11/10 {
		t.Errorf("%d bytes came from the upstream, and the image has %d", got, bytes)
	}
	for i, s := range z.nodes {
		known := s.daemon.sharing.Status().Avoided
		if !slices.ContainsFunc(known, func(a peer.Avoided) bool { return a.Address == liar && a.Blob == "" && a.Lied }) {
			t.Errorf("node %d avoids %+v, and not the liar %s", i, known, liar)
		}
	}
}
