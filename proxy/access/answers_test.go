package access_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/proxy/access"
)

var errDown = errors.New("no route")

// The registry takes a right away, says so, and cannot be asked afterwards.
func TestNoEndsTheBeliefInAnEarlierYes(t *testing.T) {
	rights := []access.Right{access.Login, access.Pull, access.PullBlobs, access.List}
	ends := map[access.Right][]access.Right{
		access.Login:     {access.Login, access.Pull, access.PullBlobs, access.List},
		access.Pull:      {access.Pull, access.PullBlobs},
		access.PullBlobs: {access.Pull, access.PullBlobs},
		access.List:      {access.List},
	}
	for _, refused := range rights {
		t.Run(fmt.Sprintf("%q", refused), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate()
				for _, right := range rights {
					if _, err := g.Decide(t.Context(), answering(alice, right, "v1", nil)); err != nil {
						t.Fatal(err)
					}
				}
				pass(2 * time.Hour) // longer than a yes holds without a question
				if _, err := g.Decide(t.Context(), answering(alice, refused, "v1", fs.ErrPermission)); !errors.Is(err, access.ErrRefused) {
					t.Fatal(err)
				}
				pass(time.Minute) // longer than a no
				for _, right := range rights {
					ended := false
					for _, e := range ends[refused] {
						ended = ended || e == right
					}
					why, err := g.Decide(t.Context(), answering(alice, right, "v1", errDown))
					if ended != errors.Is(err, errDown) || !ended && (err != nil || why != access.Offline) {
						t.Errorf("%q, while the upstream cannot be asked: %q, %v", right, why, err)
					}
				}
			})
		})
	}
}

// A token service refuses a login for the scope of a repository that the user may not pull from.
func TestLoginThatIsRefusedForOneRepositoryIsBelievedForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		other := answering(alice, access.Login, "", fs.ErrPermission)
		other.Repository.Name = "team/other"
		for _, right := range []access.Right{access.Login, access.Pull} {
			if _, err := g.Decide(t.Context(), answering(alice, right, "v1", nil)); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * time.Hour)
		if _, err := g.Decide(t.Context(), other); !errors.Is(err, access.ErrRefused) {
			t.Fatal(err)
		}
		if why, err := g.Decide(t.Context(), answering(alice, access.Login, "", errDown)); why != access.Offline || err != nil {
			t.Errorf("for the repository that she may pull from: %q, %v", why, err)
		}
		other.Ask = func(context.Context, time.Time) error { return errDown }
		pass(time.Minute)
		if _, err := g.Decide(t.Context(), other); !errors.Is(err, errDown) {
			t.Errorf("for the one that refused her: %v", err)
		}
	})
}

func TestRefusedRequestsMakeNoYesForgotten(t *testing.T) {
	g := newGate()
	if _, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", nil)); err != nil {
		t.Fatal(err)
	}
	const requests = 20_000 // more than are remembered
	for n := range requests {
		q := answering(access.Credential{}, access.Pull, "v1", fs.ErrPermission)
		q.Repository.Name = fmt.Sprint("team/", n)
		if _, err := g.Decide(t.Context(), q); !errors.Is(err, access.ErrRefused) {
			t.Fatal(err)
		}
	}
	if why, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", errDown)); why != access.Remembered || err != nil {
		t.Errorf("%q, %v", why, err)
	}
	if n := len(g.Decisions()); n >= requests {
		t.Errorf("%d answers are remembered", n)
	}
}

// A client sends 200 wrong passwords a second for a minute, at a registry where the login tells, or at one where the
// repository alone does. The registry answers after a second.
func TestFloodOfWrongCredentialsIsBoundedAndHurtsNobody(t *testing.T) {
	flooding, elsewhere := netip.MustParsePrefix("10.0.0.7/32"), netip.MustParsePrefix("10.0.0.8/32")
	for _, right := range []access.Right{access.Login, access.Pull} {
		t.Run(fmt.Sprintf("%q", right), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := access.New(access.Options{Key: access.NewKey(), Recheck: 10 * time.Second, Offline: time.Hour, Negative: 10 * time.Second})
				ask := func(c access.Credential, from netip.Prefix, answer error, asked *atomic.Int64) error {
					q := answering(c, right, "v1", nil)
					q.From = from
					q.Ask = func(context.Context, time.Time) error {
						asked.Add(1)
						<-time.After(time.Second)
						return answer
					}
					_, err := g.Decide(t.Context(), q)
					return err
				}
				var wrong, known, fresh atomic.Int64
				if err := ask(alice, flooding, nil, &known); err != nil {
					t.Fatal(err)
				}
				const each = time.Second / 200
				for n := range 200 * 60 {
					go func() {
						err := ask(access.Password("alice", fmt.Sprint(n)), flooding, fs.ErrPermission, &wrong)
						if !errors.Is(err, access.ErrRefused) && !errors.Is(err, access.ErrTooMany) {
							t.Error(err)
						}
					}()
					<-time.After(each)
					switch n % 2000 {
					case 0:
						if err := ask(alice, flooding, nil, &known); err != nil {
							t.Errorf("a credential that the upstream has accepted, from the flooding address: %v", err)
						}
					case 1000:
						if err := ask(access.Password("carol", fmt.Sprint(n)), elsewhere, nil, &fresh); err != nil {
							t.Errorf("a new credential from another address: %v", err)
						}
					}
				}
				pass(2 * time.Second)
				if n := wrong.Load(); n < 60 || n > 150 {
					t.Errorf("the upstream was asked about %d wrong credentials", n)
				}
				if n, most := len(g.Decisions()), wrong.Load()+known.Load()+fresh.Load(); int64(n) > most {
					t.Errorf("%d answers are remembered, of %d", n, most)
				}
				if err := ask(bob, flooding, nil, &fresh); err != nil {
					t.Errorf("a new credential of the flooding address, when that has stopped: %v", err)
				}
			})
		})
	}
}

func TestForgetSaysThatTheFileCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	g := access.New(access.Options{Key: access.NewKey(), File: filepath.Join(dir, "access.json"), Recheck: time.Hour})
	if _, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", nil)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Forget(all); n != 1 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d, %v", n, err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Forget(all); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "access.json")); err != nil {
		t.Error(err)
	}
}
