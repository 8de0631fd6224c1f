package dial

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// nameServers are a mute name server and one that answers at once. The resolver
// asks them as Go's does: each in turn, 5 s at most.
type nameServers struct {
	*Resolver
	asked []string // the servers that a question was sent to
	down  map[string]bool
}

func newNameServers() *nameServers {
	s := &nameServers{Resolver: NewResolver(), down: map[string]bool{"10.0.0.1:53": true}}
	s.dial = func(_ context.Context, _, addr string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		s.asked = append(s.asked, addr)
		if !s.down[addr] {
			go func() {
				_, _ = theirs.Write([]byte("answer"))
				theirs.Close()
			}()
		}
		return ours, nil
	}
	return s
}

// query asks the name servers for one name, and returns how long that took.
func (s *nameServers) query(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for _, addr := range []string{"10.0.0.1:53", "10.0.0.2:53"} {
		conn, err := s.ask(t.Context(), "udp", addr)
		if errors.Is(err, errMute) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 16))
		conn.Close()
		if err == nil {
			break
		}
	}
	return time.Since(began)
}

func TestMuteNameServerCostsOneLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newNameServers()
		if took := s.query(t); took != 5*time.Second {
			t.Errorf("the first look-up took %v, want 5 s", took)
		}
		if got := s.Mute(); !slices.Equal(got, []string{"10.0.0.1:53"}) {
			t.Errorf("mute are %v", got)
		}
		for range 3 {
			if took := s.query(t); took != 0 {
				t.Errorf("a later look-up took %v", took)
			}
		}
		pass(mutePause)
		if took := s.query(t); took != 5*time.Second {
			t.Errorf("after a pause the mute one is asked again; the look-up took %v", took)
		}
		if took := s.query(t); took != 0 {
			t.Errorf("one look-up asks it again; the next took %v", took)
		}
		pass(mutePause)
		s.down["10.0.0.1:53"] = false
		s.query(t)
		if got := s.Mute(); len(got) != 0 {
			t.Errorf("it answers again; mute are %v", got)
		}
		s.asked = nil
		s.query(t)
		if !slices.Equal(s.asked, []string{"10.0.0.1:53"}) {
			t.Errorf("asked %v, want the first", s.asked)
		}
	})
}

func TestNameServersAreAskedWhileNoneAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newNameServers()
		s.down["10.0.0.2:53"] = true
		for range 3 {
			s.query(t)
		}
		if len(s.asked) != 6 {
			t.Errorf("asked %v, want both, three times", s.asked)
		}
	})
}
