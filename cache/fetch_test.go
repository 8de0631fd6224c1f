package cache

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// fetch brings the origin's blob to disk without a client.
func fetch(ctx context.Context, s *Store, o *filltest.Origin) (int64, error) {
	return s.Fetch(ctx, o.Digest, Source{Size: int64(len(o.Content)), Fetch: o.Fetch})
}

func TestFetchReturnsWhenTheBlobIsOnDisk(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	for _, size := range []int{0, 1, 1000, 5<<20 + 123} {
		o := filltest.New(size, 1)
		n, err := fetch(t.Context(), s, o)
		if err != nil || n != int64(size) {
			t.Errorf("%d bytes: fetched %d, %v", size, n, err)
		}
		if onDisk, err := s.Stat(o.Digest); size > 0 && (err != nil || onDisk != int64(size)) {
			t.Errorf("%d bytes: on disk are %d, %v", size, onDisk, err)
		}
		if n, err := fetch(t.Context(), s, o); err != nil || n != 0 {
			t.Errorf("%d bytes: fetched again %d, %v", size, n, err)
		}
		if state := pull(t, s, o); state != Hit {
			t.Errorf("%d bytes: pulled: %s", size, state)
		}
	}
}

func TestFetchOfABlobThatTheDiskDoesNotKeepFails(t *testing.T) {
	s := openStore(t, t.TempDir(), withoutPartials(small))
	o := filltest.New(3<<20, 1)
	if _, err := fetch(t.Context(), s, o); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("fetched: %v", err)
	}
	if n, _ := o.Total(); n > small.Segment {
		t.Errorf("%d bytes were sent though no client wants them", n)
	}
}

func TestFetchOfABlobThatDoesNotFitFails(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxSize: 64 << 20})
	o := filltest.New(70<<20, 1)
	if _, err := fetch(t.Context(), s, o); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("fetched: %v", err)
	}
}

func TestFetchUsesItsOwnSourceIfThatOfAnotherFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(1<<20, 1)
		o.Plan = func(n int, _ Range) filltest.Act {
			if n == 0 {
				<-time.After(time.Second)
				return filltest.Act{Err: errors.New("down")}
			}
			return filltest.Act{}
		}
		failed := make(chan error)
		go func() {
			_, err := s.Fetch(t.Context(), o.Digest, Source{Upstream: "other", Fetch: o.Fetch})
			failed <- err
		}()
		synctest.Wait()
		if _, err := fetch(t.Context(), s, o); err != nil {
			t.Error(err)
		}
		if err := <-failed; err != nil { // it shares the other source
			t.Error(err)
		}
	})
}

// halfway answers with a body that stops in its middle until it is released, or its fill ends.
func halfway(o *filltest.Origin) (release func()) {
	proceed := make(chan struct{})
	o.Plan = func(n int, _ Range) filltest.Act {
		if n > 0 {
			return filltest.Act{}
		}
		return filltest.Act{Gate: func(off int64) {
			if off >= 512<<10 {
				<-proceed
			}
		}}
	}
	return func() { close(proceed) }
}

func TestFillStopsWhenNobodyWantsItsBlob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		o := filltest.New(2<<20, 1)
		o.Plan = func(n int, _ Range) filltest.Act {
			if n == 0 {
				return filltest.Act{Stall: 1 << 20}
			}
			return filltest.Act{}
		}
		var stop [2]context.CancelFunc
		left := make(chan error)
		for i := range stop {
			var ctx context.Context
			ctx, stop[i] = context.WithCancel(t.Context())
			go func() {
				_, err := fetch(ctx, s, o)
				left <- err
			}()
		}
		synctest.Wait()
		stop[0]()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the first caller: %v", err)
		}
		synctest.Wait()
		if n := len(s.Fills()); n != 1 {
			t.Fatalf("%d fills while another caller wants the blob", n)
		}
		stop[1]()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the second caller: %v", err)
		}
		synctest.Wait()
		if n := len(s.Fills()); n != 0 {
			t.Fatalf("%d fills that nobody wants", n)
		}
		n, err := fetch(t.Context(), s, o)
		if err != nil || n != 1<<20 {
			t.Errorf("fetched %d bytes, %v; want the other half", n, err)
		}
		if n, most := o.Total(); n != 2<<20 || most != 1 {
			t.Errorf("%d bytes were sent, one of them %d times", n, most)
		}
	})
}

func TestFillThatAClientAskedForGoesOnWithoutAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		o := filltest.New(2<<20, 1)
		release := halfway(o)
		ctx, stop := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := fetch(ctx, s, o)
			left <- err
		}()
		synctest.Wait()
		blob := open(t, s, o)
		if err := blob.Close(); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller: %v", err)
		}
		synctest.Wait()
		if n := len(s.Fills()); n != 1 {
			t.Errorf("%d fills after a client has left", n)
		}
		release()
		settle(t, s)
		if _, err := s.Stat(o.Digest); err != nil {
			t.Error(err)
		}
	})
}

func TestFetchIsUnattendedUntilAClientAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Segment: 512 << 10, Connections: 1})
		o := filltest.New(2<<20, 1)
		var attended []bool
		source := Source{Fetch: func(ctx context.Context, r Range) (Content, error) {
			attended = append(attended, IsAttended(ctx))
			return o.Fetch(ctx, r)
		}}
		o.Plan = func(n int, _ Range) filltest.Act {
			if n == 1 {
				return filltest.Act{Gate: func(int64) { <-time.After(time.Hour) }}
			}
			return filltest.Act{}
		}
		done := make(chan error)
		go func() {
			_, err := s.Fetch(Unattended(t.Context()), o.Digest, source)
			done <- err
		}()
		synctest.Wait()
		blob, err := s.Open(t.Context(), o.Digest, source)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		if _, err := io.Copy(io.Discard, blob); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(attended); n < 3 || attended[0] || attended[1] || !attended[n-1] {
			t.Errorf("attended: %v", attended)
		}
	})
}

func TestFetchIsAttendedIfSomebodyWaits(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	o := filltest.New(1000, 1)
	source := Source{Fetch: func(ctx context.Context, r Range) (Content, error) {
		if !IsAttended(ctx) {
			t.Error("it is unattended")
		}
		return o.Fetch(ctx, r)
	}}
	if _, err := s.Fetch(t.Context(), o.Digest, source); err != nil {
		t.Error(err)
	}
}
