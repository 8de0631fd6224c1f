package peer_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/peer"
	"github.com/larder-registry/larder/upstream/peer/tree"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// ownerOf is the index of a key's owner.
func ownerOf(key string, addresses []string) int {
	var places []tree.Place
	for _, a := range addresses {
		places = append(places, tree.PlaceOf(a))
	}
	return tree.Owners(key, places, 1)[0]
}

// all has each node get the blob at once, and returns how long the last one took.
func (z *zone) all(t *testing.T, nodes ...int) time.Duration {
	t.Helper()
	began := time.Now()
	var getting sync.WaitGroup
	for _, i := range nodes {
		getting.Go(func() {
			b, err := z.node(i).get(t.Context(), 0)
			if err != nil || string(b) != string(z.blob) {
				t.Errorf("node %d got %d bytes and %v", i, len(b), err)
			}
		})
	}
	getting.Wait()
	return time.Since(began)
}

func numbers(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func TestUpstreamIsAskedOnceHoweverLongItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(40)
		z.took = 10 * time.Second
		z.start(t)
		if took := z.all(t, numbers(40)...); z.asked.Load() != 1 || took > z.took+time.Second {
			t.Errorf("the upstream was asked %d times, in %v", z.asked.Load(), took)
		}
		given := 0
		for i := range 40 {
			if n, _ := z.node(i).peers.Moved(); n > 0 {
				given++
			}
		}
		if given < 10 {
			t.Errorf("only %d of 40 nodes gave the blob to others", given)
		}
	})
}

func TestSilentNodeCostsItsPatienceOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(5)
		z.start(t)
		order := z.owner()
		silent := upstreamtest.NewPipes()
		defer silent.Close()
		z.node(order[0]).in = silent
		stopped := make(chan struct{})
		go func() { // it accepts, and says nothing
			defer close(stopped)
			var conns []net.Conn
			for {
				conn, err := silent.Accept()
				if err != nil {
					break
				}
				conns = append(conns, conn)
			}
			for _, conn := range conns {
				conn.Close()
			}
		}()
		if took := z.all(t, order[2]); took < peer.Patience || took > peer.Patience+50*time.Millisecond {
			t.Errorf("the first blob took %v", took)
		}
		if n := z.asked.Load(); n != 1 || !z.node(order[1]).has("") {
			t.Errorf("the upstream was asked %d times, and not through the node that takes the owner's place", n)
		}
		if avoided := z.node(order[2]).peers.Avoided(); len(avoided) != 1 || avoided[0].Address != address(order[0]).String() {
			t.Errorf("avoided are %+v", avoided)
		}
		z.node(order[2]).fill = nil
		if took := z.all(t, order[2]); took > 50*time.Millisecond {
			t.Errorf("the second blob took %v", took)
		}
		silent.Close()
		<-stopped
	})
}

func TestNobodyThereCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(3)
		z.start(t)
		order := z.owner()
		z.mu.Lock()
		delete(z.nodes, address(order[0]).String())
		delete(z.nodes, address(order[1]).String())
		z.mu.Unlock()
		n := order[2]
		if took := z.all(t, n); took > 0 || z.asked.Load() != 1 {
			t.Errorf("it took %v, and the upstream was asked %d times", took, z.asked.Load())
		}
	})
}

// Nodes that know different others wait for each other in a circle, until they fall silent.
func TestNodesThatWaitForEachOtherAskTheUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(4)
		z.start(t)
		order := z.owner()
		a, b := order[2], order[3]
		z.node(a).knows(a, b)
		z.node(b).knows(b, order[0], a)
		z.mu.Lock()
		delete(z.nodes, address(order[0]).String())
		z.mu.Unlock()
		z.node(order[1]).knows(order[1])
		if took := z.all(t, a, b); took > 3*peer.Patience {
			t.Errorf("the circle was waited for for %v", took)
		}
	})
}

// A node that knows of another owner than the one that asks passes the question on, once.
func TestNodeThatKnowsAnotherOwnerPassesTheQuestionOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(6)
		z.start(t)
		order := z.owner()
		late := order[5]
		z.node(late).knows(late, order[4]) // it has just started
		z.all(t, late)
		if n := z.asked.Load(); n != 1 || !z.node(order[0]).has("") {
			t.Errorf("the upstream was asked %d times, and not by the owner", n)
		}
	})
}

func TestManifestIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(3)
		z.start(t)
		var asking sync.WaitGroup
		for i := range 3 {
			asking.Go(func() {
				desc, raw, err := z.node(i).source(0).Manifest(t.Context(), "team/app", z.digest.String(), false)
				if err != nil || desc.Digest != z.digest || string(raw) != string(z.blob) {
					t.Errorf("node %d got %+v and %v", i, desc, err)
				}
			})
		}
		asking.Wait()
		if taken := z.asked.Load(); taken > 3 {
			t.Errorf("the upstream was asked %d times", taken)
		}
	})
}

// A stalled body ends, so that the fill goes on elsewhere.
func TestNodeThatSendsTooSlowlyIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(2)
		z.start(t)
		order := z.owner()
		n := z.node(order[1])
		slow := upstreamtest.NewPipes()
		z.node(order[0]).in = slow
		server := &http.Server{ReadHeaderTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Larder-Peer", address(order[0]).String())
			w.Header().Set("Content-Range", "bytes 0-59999/60000")
			w.WriteHeader(http.StatusPartialContent)
			for {
				if _, err := w.Write([]byte("x")); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				<-time.After(100 * time.Millisecond)
			}
		})}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = server.Serve(slow) }()
		open := func() upstream.Content {
			content, err := n.source(0).OpenBlob(context.WithoutCancel(t.Context()), "team/app", z.digest, upstream.Range{Len: 60_000})
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
		content := open()
		began := time.Now()
		if _, err := io.Copy(io.Discard, content.Body); err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("after %v the body ended with %v", time.Since(began), err)
		}
		content.Body.Close()
		content = open()
		if b, err := io.ReadAll(content.Body); err != nil || string(b) != string(z.blob) || z.asked.Load() != 1 {
			t.Errorf("the upstream was not asked then: %d bytes and %v", len(b), err)
		}
		content.Body.Close()
		_ = server.Close()
		<-ended
		<-time.After(time.Second) // the handler looks at its connection
	})
}

func TestUploadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := upstreamtest.NewPipes()
		l := peer.LimitUpload(in, 1<<20)
		began := time.Now()
		var sending sync.WaitGroup
		for range 2 {
			sending.Go(func() {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				if n, err := conn.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
					t.Errorf("%d bytes were sent, and %v", n, err)
				}
				conn.Close()
			})
			sending.Go(func() {
				conn, err := in.Dial(t.Context(), "", "")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, conn)
			})
		}
		sending.Wait()
		if took := time.Since(began); took < 1900*time.Millisecond || took > 2100*time.Millisecond {
			t.Errorf("2 MiB took %v at 1 MiB a second", took)
		}
	})
}
