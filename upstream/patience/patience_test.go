package patience_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/reply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// never is how long it takes a server that does not answer.
const never = 1000 * time.Hour

// server answers after a time that its test sets.
type server struct {
	*patience.Place

	mu       sync.Mutex // guards what follows
	kept     time.Duration
	fresh    time.Duration
	err      error // in place of an answer
	sent     int
	again    int // of those on fresh connections
	running  int // of these, now
	most     int // of these, at the same time
	repeated []bool
	closed   int // bodies
}

func newServer() *server {
	return &server{Place: patience.NewPlaces(slog.New(slog.DiscardHandler)).Of("registry.test")}
}

// answer is a body that counts that it was closed.
type answer struct {
	io.Reader
	of *server
}

func (a answer) Close() error {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.of.closed++
	return nil
}

func (s *server) send(ctx context.Context, fresh bool) (*http.Response, error) {
	s.mu.Lock()
	takes, err, text := s.kept, s.err, "kept"
	s.sent++
	if fresh {
		takes, text = s.fresh, "fresh"
		s.again++
		s.running++
		s.most = max(s.most, s.running)
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.running--
		}()
	}
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: answer{strings.NewReader(text), s}}, nil
}

func (s *server) question() patience.Question {
	return patience.Question{Timeout: 20 * time.Second, Send: s.send, Repeated: func(used bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.repeated = append(s.repeated, used)
	}}
}

// ask returns the answer's text and how long it took.
func (s *server) ask(t *testing.T, q patience.Question) (string, time.Duration, error) {
	t.Helper()
	began := time.Now()
	resp, err := s.Ask(t.Context(), q)
	took := time.Since(began)
	if err != nil {
		return "", took, err
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	resp.Body.Close()
	return string(text), took, nil
}

func TestQuestionWithoutAnAnswerIsPutAgainAfterTwoSeconds(t *testing.T) {
	for name, test := range map[string]struct {
		kept, fresh time.Duration
		want        string
		after       time.Duration
		again       int
	}{
		"an answer at once":           {10 * time.Millisecond, never, "kept", 10 * time.Millisecond, 0},
		"just in time":                {1999 * time.Millisecond, never, "kept", 1999 * time.Millisecond, 0},
		"a connection that is gone":   {never, 10 * time.Millisecond, "fresh", 2010 * time.Millisecond, 1},
		"slow, and the second slower": {3 * time.Second, 5 * time.Second, "kept", 3 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.kept, s.fresh = test.kept, test.fresh
				text, took, err := s.ask(t, s.question())
				if text != test.want || took != test.after || err != nil || s.again != test.again {
					t.Errorf("%q after %v, %v, %d questions put again; want %q after %v, %d", text, took, err, s.again, test.want, test.after, test.again)
				}
				if len(s.repeated) != test.again || test.again > 0 && s.repeated[0] != (test.want == "fresh") {
					t.Errorf("counted %v", s.repeated)
				}
				if s.closed != 1 {
					t.Errorf("%d bodies are closed, want 1", s.closed)
				}
			})
		})
	}
}

func TestBothAnswersAtTheSameTimeAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kept, s.fresh = 3*time.Second, time.Second
		if text, took, err := s.ask(t, s.question()); text == "" || took != 3*time.Second || err != nil {
			t.Errorf("got %q after %v, %v", text, took, err)
		}
	})
}

func TestPatienceIsThreeTimesTheUsualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kept, s.fresh = 1500*time.Millisecond, time.Millisecond
		for range 3 {
			if text, _, err := s.ask(t, s.question()); text != "kept" || err != nil {
				t.Fatalf("got %q, %v", text, err)
			}
		}
		s.kept = never
		if _, took, err := s.ask(t, s.question()); took != 4501*time.Millisecond || err != nil {
			t.Errorf("put again after %v, %v; want 4.5 s", took, err)
		}
	})
}

func TestSecondQuestionIsPutOnlyWhereItMayBe(t *testing.T) {
	for name, change := range map[string]func(*patience.Question){
		"a limit holds it back": func(q *patience.Question) { q.Again = func() bool { return false } },
		"it is known to be slow": func(q *patience.Question) {
			q.Slow = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.kept = 10 * time.Second
				q := s.question()
				change(&q)
				if text, took, err := s.ask(t, q); text != "kept" || took != 10*time.Second || err != nil || s.again != 0 {
					t.Errorf("got %q after %v, %v, and %d questions again", text, took, err, s.again)
				}
			})
		})
	}
}

func TestSecondQuestionsToAServerTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kept, s.fresh = never, 20*time.Millisecond
		var clients sync.WaitGroup
		for range 40 {
			clients.Go(func() {
				if text, took, err := s.ask(t, s.question()); text != "fresh" || took > 2200*time.Millisecond || err != nil {
					t.Errorf("got %q after %v, %v", text, took, err)
				}
			})
		}
		clients.Wait()
		if s.again != 40 || s.most != 4 {
			t.Errorf("%d of 40 questions were put again, %d at the same time; want all, 4 at a time", s.again, s.most)
		}
	})
}

func TestErrorOfTheSecondQuestionDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		q := s.question()
		q.Send = func(ctx context.Context, fresh bool) (*http.Response, error) {
			if fresh {
				return nil, io.ErrUnexpectedEOF
			}
			return s.send(ctx, false)
		}
		s.kept = 5 * time.Second
		if text, took, err := s.ask(t, q); text != "kept" || took != 5*time.Second || err != nil {
			t.Errorf("got %q after %v, %v", text, took, err)
		}
	})
}

func TestSilentServerIsRememberedAndProbedByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kept, s.fresh = never, never
		if _, took, err := s.ask(t, s.question()); took != 20*time.Second || !errors.Is(err, reply.ErrTimeout) {
			t.Fatalf("got %v after %v", err, took)
		}
		var silent *patience.SilentError
		for range 10 {
			if _, took, err := s.ask(t, s.question()); took != 0 || !errors.As(err, &silent) || !errors.Is(err, reply.ErrTimeout) {
				t.Fatalf("got %v after %v, want an error at once", err, took)
			}
		}
		pass(5 * time.Second)
		before := s.sent
		var clients sync.WaitGroup
		var longest time.Duration
		for range 10 {
			clients.Go(func() {
				_, took, err := s.ask(t, s.question())
				s.mu.Lock()
				defer s.mu.Unlock()
				if longest = max(longest, took); err == nil {
					t.Error("there is an answer")
				}
			})
		}
		clients.Wait()
		if sent := s.sent - before; sent > 2 || longest != 3*time.Second { // one question, put twice
			t.Errorf("%d requests probed it, and one waited %v; want one for 3 s", sent, longest)
		}
		s.kept = time.Second
		if _, took, err := s.ask(t, s.question()); took != 0 || err == nil {
			t.Errorf("during the pause: %v after %v", err, took)
		}
		pass(10 * time.Second)
		if text, _, err := s.ask(t, s.question()); text != "kept" || err != nil {
			t.Errorf("the probe: %q, %v", text, err)
		}
		if text, _, err := s.ask(t, s.question()); text != "kept" || err != nil {
			t.Errorf("after the probe: %q, %v", text, err)
		}
	})
}

func TestServerIsSilentOnlyIfItSaysNothingAtAll(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *server){
		"another question was answered meanwhile": func(t *testing.T, s *server) {
			s.kept, s.fresh = never, never
			var clients sync.WaitGroup
			clients.Go(func() { _, _, _ = s.ask(t, s.question()) })
			pass(10 * time.Second)
			s.mu.Lock()
			s.kept = time.Millisecond
			s.mu.Unlock()
			_, _, _ = s.ask(t, s.question())
			clients.Wait()
		},
		"the client left early": func(t *testing.T, s *server) {
			s.kept, s.fresh = never, never
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := s.Ask(ctx, s.question()); err == nil {
				t.Error("there is an answer")
			}
		},
		"it refuses connections": func(t *testing.T, s *server) {
			s.err = io.ErrUnexpectedEOF
			for range 10 {
				_, _, _ = s.ask(t, s.question())
			}
			s.err = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				ask(t, s)
				s.kept = time.Millisecond
				if text, _, err := s.ask(t, s.question()); text != "kept" || err != nil {
					t.Errorf("then: %q, %v", text, err)
				}
			})
		})
	}
}

// A client whose own patience ends shortly before the upstream's timeout still shows
// that the server is silent.
func TestClientsThatLeaveLateShowSilenceToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kept, s.fresh = never, never
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		_, _ = s.Ask(ctx, s.question())
		var silent *patience.SilentError
		if _, _, err := s.ask(t, s.question()); !errors.As(err, &silent) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAwaitedBodyIsReadAgainInWhole(t *testing.T) {
	for _, most := range []int64{1, 6, 7, 100} {
		s := newServer()
		resp := &http.Response{Body: answer{strings.NewReader("answer"), s}}
		if err := patience.Await(resp, most); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "answer" {
			t.Errorf("%d awaited: %q, %v", most, got, err)
		}
		resp.Body.Close()
		if s.closed != 1 {
			t.Errorf("%d awaited: closed %d times", most, s.closed)
		}
	}
}
