package access_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/proxy/access"
)

var (
	repo  = access.Repository{Upstream: "registry.example.com", Name: "team/a"}
	alice = access.Password("alice", "alice's password")
	bob   = access.Password("bob", "bob's password")
)

func newGate() *access.Gate {
	return access.New(access.Options{Key: access.NewKey(), Recheck: time.Hour, Offline: 24 * time.Hour, Negative: 10 * time.Second})
}

// answering returns a question that is answered with err.
func answering(c access.Credential, right access.Right, reference string, err error) access.Question {
	return access.Question{Credential: c, Repository: repo, Right: right, Reference: reference,
		Ask: func(context.Context, time.Time) error { return err }}
}

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func all(_, _ string) bool { return true }

func TestAnswerThatComesAfterForgetIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		q := answering(alice, access.Pull, "v1", nil)
		answer := make(chan struct{})
		q.Ask = func(context.Context, time.Time) error { <-answer; return nil }
		go func() { _, _ = g.Decide(t.Context(), q) }()
		synctest.Wait()
		_, _ = g.Forget(all)
		later := make(chan error, 1)
		go func() {
			_, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", fs.ErrPermission))
			later <- err
		}()
		synctest.Wait()
		select {
		case err := <-later:
			if !errors.Is(err, access.ErrRefused) {
				t.Errorf("a question after Forget: %v", err)
			}
		default:
			t.Error("a question after Forget waits for the answer to one before it")
		}
		close(answer)
		synctest.Wait()
		if _, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", errors.New("asked"))); !errors.Is(err, access.ErrRefused) {
			t.Errorf("the yes that came after Forget is remembered: %v", err)
		}
		if accepted := g.Accepted(repo); len(accepted) > 0 {
			t.Errorf("the credential is used in the background: %v", accepted)
		}
	})
}

func TestTokensFromBeforeForgetAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var got time.Time
		q := answering(alice, access.Pull, "v1", nil)
		q.Ask = func(_ context.Context, since time.Time) error { got = since; return nil }
		_, _ = g.Decide(t.Context(), q)
		if age := time.Since(got); age <= 0 || age > time.Minute {
			t.Errorf("a token of the upstream may be %v old", age)
		}
		_, _ = g.Forget(all)
		forgot := time.Now()
		pass(time.Second)
		_, _ = g.Decide(t.Context(), q)
		if !got.Equal(forgot) {
			t.Errorf("a token may be from %v before Forget", forgot.Sub(got))
		}
	})
}

func TestRefusedLoginIsOfItsRepositoryAndAKnownOneOfAll(t *testing.T) {
	g := newGate()
	other := access.Repository{Upstream: repo.Upstream, Name: "team/b"}
	login := func(c access.Credential, in access.Repository, answer error) error {
		q := answering(c, access.Login, "", answer)
		q.Repository = in
		_, err := g.Decide(t.Context(), q)
		return err
	}
	if err := login(alice, repo, fs.ErrPermission); !errors.Is(err, access.ErrRefused) {
		t.Errorf("a login that is refused: %v", err)
	}
	if err := login(alice, repo, nil); !errors.Is(err, access.ErrRefused) {
		t.Errorf("soon afterwards: %v, though the upstream need not be asked", err)
	}
	if err := login(alice, other, nil); err != nil {
		t.Errorf("in another repository: %v", err)
	}
	if err := login(alice, repo, fs.ErrPermission); err != nil {
		t.Errorf("once it is known: %v, though the upstream need not be asked", err)
	}
	if err := login(bob, other, fs.ErrPermission); !errors.Is(err, access.ErrRefused) {
		t.Errorf("another credential: %v", err)
	}
	if g.MayPull(alice, repo, other) || len(g.Accepted(repo)) > 0 {
		t.Error("a login is taken for a right to pull")
	}
}

func TestOneRightIsNotAnother(t *testing.T) {
	asked := errors.New("asked")
	for name, c := range map[string]struct {
		had, wanted access.Right
		covered     bool
	}{
		"the right to list is none to pull":  {access.List, access.Pull, false},
		"the right to list is none to blobs": {access.List, access.PullBlobs, false},
		"the right to blobs is none to pull": {access.PullBlobs, access.Pull, false},
		"the right to blobs is none to list": {access.PullBlobs, access.List, false},
		"the right to pull is none to list":  {access.Pull, access.List, false},
		"the right to pull is one to blobs":  {access.Pull, access.PullBlobs, true},
		"a right is remembered":              {access.List, access.List, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			if _, err := g.Decide(t.Context(), answering(alice, c.had, "v1", nil)); err != nil {
				t.Fatal(err)
			}
			_, err := g.Decide(t.Context(), answering(alice, c.wanted, "v1", asked))
			if (err == nil) != c.covered || err != nil && !errors.Is(err, asked) {
				t.Errorf("%v", err)
			}
			if c.had == access.List && len(g.Accepted(repo)) > 0 && c.wanted == access.List {
				t.Error("a credential that may list is used to pull in the background")
			}
		})
	}
	g := newGate()
	if _, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Decide(t.Context(), answering(alice, access.List, "", fs.ErrPermission)); !errors.Is(err, access.ErrRefused) {
		t.Errorf("list: %v", err)
	}
	if _, err := g.Decide(t.Context(), answering(alice, access.Pull, "v1", asked)); err != nil || len(g.Accepted(repo)) != 1 {
		t.Errorf("after a no to the list, a pull: %v", err)
	}
}

func TestRefusedCredentialIsAskedAboutAnew(t *testing.T) {
	asked := errors.New("asked")
	all := []access.Right{access.Pull, access.PullBlobs, access.List}
	for refused, ends := range map[access.Right][]access.Right{
		access.Pull:      {access.Pull, access.PullBlobs},
		access.PullBlobs: {access.Pull, access.PullBlobs},
		access.List:      {access.List},
	} {
		g := newGate()
		decide := func(c access.Credential, name string, right access.Right, answer error) error {
			q := answering(c, right, "v1", answer)
			q.Repository.Name = name
			_, err := g.Decide(t.Context(), q)
			return err
		}
		for _, right := range all {
			for _, c := range []access.Credential{bob, alice} {
				if err := errors.Join(decide(c, "team/a", right, nil), decide(c, "team/b", right, nil)); err != nil {
					t.Fatal(err)
				}
			}
		}
		g.Refused(repo, alice, refused)
		if used := slices.Contains(g.Accepted(repo), alice); used != (refused == access.List) {
			t.Errorf("after a refusal of %q the credential is used for others: %t", refused, used)
		}
		for _, right := range all {
			if err := decide(alice, "team/a", right, asked); errors.Is(err, asked) != slices.Contains(ends, right) {
				t.Errorf("after a refusal of %q, %q: %v", refused, right, err)
			}
			if err := errors.Join(decide(bob, "team/a", right, asked), decide(alice, "team/b", right, asked)); err != nil {
				t.Errorf("after a refusal of %q, %q of another credential or in another repository: %v", refused, right, err)
			}
		}
	}
}

// Two clients ask at once. What decides nothing for one of them decides nothing for the other.
func TestOnlyDecisionsAreSharedBetweenClients(t *testing.T) {
	for name, c := range map[string]struct {
		first, second access.Question
		want          error
	}{
		"of two credentials":             {answering(alice, access.Pull, "v1", nil), answering(bob, access.Pull, "v1", fs.ErrPermission), access.ErrRefused},
		"of two rights":                  {answering(alice, access.List, "", nil), answering(alice, access.Pull, "", fs.ErrPermission), access.ErrRefused},
		"when one asks for what is not":  {answering(alice, access.Pull, "gone", fs.ErrNotExist), answering(alice, access.Pull, "v1", nil), nil},
		"when one gets a strange answer": {answering(alice, access.Pull, "odd", errors.New("status 400")), answering(alice, access.Pull, "v1", fs.ErrPermission), access.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate()
				answer := make(chan struct{})
				result := c.first.Ask
				c.first.Ask = func(ctx context.Context, since time.Time) error { <-answer; return result(ctx, since) }
				go func() { _, _ = g.Decide(t.Context(), c.first) }()
				synctest.Wait()
				second := make(chan error, 1)
				go func() {
					_, err := g.Decide(t.Context(), c.second)
					second <- err
				}()
				synctest.Wait()
				close(answer)
				if err := <-second; !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Errorf("%v, want %v", err, c.want)
				}
			})
		})
	}
}

func TestRightIsBelievedOnlyWhileTheUpstreamCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		down := errors.New("no route")
		decide := func(c access.Credential, err error) (access.Why, error) {
			return g.Decide(t.Context(), answering(c, access.Pull, "v1", err))
		}
		if _, err := decide(alice, nil); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Hour)
		if why, err := decide(alice, down); why != access.Offline || err != nil {
			t.Errorf("after recheck, upstream dead: %s, %v", why, err)
		}
		if why, err := g.Decide(t.Context(), answering(alice, access.PullBlobs, "", down)); why != access.Offline || err != nil {
			t.Errorf("a blob: %s, %v", why, err)
		}
		if _, err := g.Decide(t.Context(), answering(alice, access.List, "", down)); err == nil {
			t.Error("the list, about which the upstream was never asked, is believed")
		}
		if _, err := decide(bob, down); !errors.Is(err, down) {
			t.Errorf("a credential that the upstream does not know: %v", err)
		}
		pass(23 * time.Hour)
		if _, err := decide(alice, down); !errors.Is(err, down) {
			t.Errorf("after offline: %v", err)
		}
		if _, err := decide(alice, fs.ErrPermission); !errors.Is(err, access.ErrRefused) {
			t.Errorf("refused: %v", err)
		}
		if why, err := decide(alice, nil); why != access.Remembered || !errors.Is(err, access.ErrRefused) {
			t.Errorf("within tags.negative_ttl of a no: %s, %v", why, err)
		}
		pass(11 * time.Second)
		if _, err := decide(alice, nil); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}
