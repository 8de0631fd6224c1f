package cache

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// rationed is a body that waits for its turn before each read.
type rationed struct {
	fill.Content
	turn func(ctx context.Context) (waited bool, err error)
}

func (r rationed) Read(p []byte) (int, error) { return r.Body.Read(p[:min(len(p), 32<<10)]) }
func (r rationed) Close() error               { return r.Body.Close() }

func (r rationed) Turn(ctx context.Context) (bool, error) { return r.turn(ctx) }

// rationedSource has the bodies of an origin wait for their turns.
func rationedSource(o *filltest.Origin, turn func(ctx context.Context) (bool, error)) Source {
	source := o.Source()
	source.Fetch = func(ctx context.Context, r Range) (Content, error) {
		content, err := o.Fetch(ctx, r)
		content.Body = rationed{content, turn}
		return content, err
	}
	return source
}

// everyMinute is a turn that comes once a minute: more rarely than any source may stall.
func everyMinute(ctx context.Context) (waited bool, err error) {
	select {
	case <-time.After(time.Minute):
		return true, nil
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
}

func TestSourceIsNotBlamedForTheTurnsOfItsBodies(t *testing.T) {
	for name, ctx := range map[string]context.Context{"for a client": context.Background(), "in the background": Unattended(context.Background())} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{})
				o, other := filltest.New(1<<20, 1), filltest.New(1<<20, 1)
				elsewhere := other.Source() // it could take over
				elsewhere.Repository = "other"
				done := make(chan error, 2)
				fetch := func(source Source) {
					if !IsAttended(ctx) {
						_, err := s.Fetch(ctx, o.Digest, source)
						done <- err
						return
					}
					blob, err := s.Open(ctx, o.Digest, source)
					if err == nil {
						_, err = io.Copy(io.Discard, blob)
						err = errors.Join(err, blob.Close())
					}
					done <- err
				}
				go fetch(rationedSource(o, everyMinute))
				synctest.Wait()
				go fetch(elsewhere)
				for range 2 {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				if asked := len(o.Requests()); asked != 1 {
					t.Errorf("the source was asked %d times", asked)
				}
				if asked := len(other.Requests()); asked != 0 {
					t.Errorf("the other source was asked %d times", asked)
				}
			})
		})
	}
}

// errShut is the error of a turn outside of the hours.
var errShut = errPostponed{errors.New("shut")}

func TestFetchStopsWhenItsTurnIsPostponedAndIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		o := filltest.New(1<<20, 1)
		left := 8 // turns of 32 KiB
		source := rationedSource(o, func(context.Context) (bool, error) {
			if left--; left < 0 {
				return false, errShut
			}
			return false, nil
		})
		if _, err := s.Fetch(Unattended(t.Context()), o.Digest, source); !errors.As(err, new(errPostponed)) {
			t.Fatalf("Fetch: %v", err)
		}
		left = 1000
		fetched, err := s.Fetch(t.Context(), o.Digest, source)
		if err != nil || fetched >= 1<<20 || fetched == 0 {
			t.Errorf("the second Fetch brought %d bytes: %v", fetched, err)
		}
	})
}

func TestAttentionComesWithTheFirstClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		o := filltest.New(1<<20, 1)
		began := make(chan (<-chan struct{}), 1)
		source := o.Source()
		source.Fetch = func(ctx context.Context, r Range) (Content, error) {
			select {
			case began <- Attention(ctx):
				<-Attention(ctx) // as a body in the background may
			default:
			}
			return o.Fetch(ctx, r)
		}
		done := make(chan error)
		go func() {
			_, err := s.Fetch(Unattended(t.Context()), o.Digest, source)
			done <- err
		}()
		attention := <-began
		synctest.Wait()
		select {
		case <-attention:
			t.Fatal("a client waits already")
		default:
		}
		blob, err := s.Open(t.Context(), o.Digest, source)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		<-attention
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
