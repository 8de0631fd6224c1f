package policy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFirstRuleThatMatchesCounts(t *testing.T) {
	open, all := rule(host+"/prod/open"), rule(host+"/*")
	all.Age = time.Hour
	p := newPolicy(t, Options{}, open, all)
	for repo, want := range map[string]*Rule{"prod/open": nil, "prod/app": all, "other": all} {
		if got := p.Rule(host, repo); got != want {
			t.Errorf("%s is covered by %+v, want %+v", repo, got, want)
		}
	}
	if got := p.Rule("elsewhere.example.com", "prod/app"); got != nil {
		t.Errorf("another host is covered by %s", got.Name())
	}
}

func TestManyCallersShareOneDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := &slowCondition{release: release}
		r := rule(host + "/prod/*")
		r.Signed = c
		p := newPolicy(t, Options{}, r)
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				if d, err := p.Decide(t.Context(), r, image("a", oci), shelf{}); err != nil || d.Result != Allowed {
					t.Errorf("got %+v, %v", d, err)
				}
			})
		}
		left, leave := context.WithCancel(t.Context())
		callers.Go(func() {
			if _, err := p.Decide(left, r, image("a", oci), shelf{}); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left got %v", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		callers.Wait()
		if n := c.asked.Load(); n != 1 {
			t.Errorf("the condition was asked %d times, want once", n)
		}
	})
}

// slowCondition answers when it is released.
type slowCondition struct {
	release chan struct{}
	asked   atomic.Int64
}

func (c *slowCondition) Evaluate(ctx context.Context, _ Image) (Answer, error) {
	c.asked.Add(1)
	select {
	case <-c.release:
		return Answer{Holds: true}, nil
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

func TestRegistryThatCannotBeAskedDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(condition)
		c.set(image("a", oci), Answer{}, errors.New("too many requests"))
		r := rule(host + "/prod/*")
		r.Signed = c
		p := newPolicy(t, Options{}, r)
		for range 3 {
			if d := decide(t, p, image("a", oci), shelf{}); d.Result != Unknown || !strings.Contains(d.String(), "too many requests") {
				t.Errorf("got %s: %s", d.Result, d)
			}
		}
		if n := c.asked.Load(); n != 1 {
			t.Errorf("the registry that throttles was asked %d times at once", n)
		}
		c.set(image("a", oci), Answer{Holds: true}, nil)
		pass(RetryAfter)
		if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed {
			t.Errorf("afterwards got %s", d)
		}
	})
}

func TestOneRefusalIsEnough(t *testing.T) {
	unsigned, unreachable := new(condition), new(condition)
	unsigned.set(image("a", oci), Answer{Reason: "it has no signature"}, nil)
	unreachable.set(image("a", oci), Answer{}, errors.New("timed out"))
	r := rule(host + "/prod/*")
	r.Signed, r.Findings = unsigned, unreachable
	p := newPolicy(t, Options{}, r)
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Refused || d.Why() != "signed: it has no signature" {
		t.Errorf("got %s: %s", d.Result, d.Why())
	}
}

func TestChangedRuleIsDecidedAgainAtOnce(t *testing.T) {
	c := new(condition)
	c.set(image("a", oci), Answer{Holds: true}, nil)
	r := rule(host + "/prod/*")
	r.Signed = c
	p := newPolicy(t, Options{}, r)
	decide(t, p, image("a", oci), shelf{})
	c.set(image("a", oci), Answer{Reason: "its key is not trusted any more"}, nil)
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed {
		t.Fatalf("under the same rule: %s", d)
	}
	changed := rule(host + "/prod/*")
	changed.Signed, changed.Basis = c, "2"
	p.Use([]*Rule{changed})
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Refused {
		t.Errorf("under the changed rule: %s", d)
	}
	// The decision of another rule is not one to fall back on.
	again := rule(host + "/prod/*")
	again.Signed, again.Basis = c, "3"
	c.set(image("a", oci), Answer{}, errors.New("offline"))
	p.Use([]*Rule{again})
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Unknown {
		t.Errorf("under a third rule, offline: %s", d)
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	r := rule(host + "/prod/*")
	r.Age = time.Hour
	p := newPolicy(t, Options{Seen: func(Image) (time.Time, bool) { return time.Now().Add(-2 * time.Hour), true }}, r)
	im := image("a", oci)
	decide(t, p, im, shelf{})
	allocs := testing.AllocsPerRun(100, func() {
		r := p.Rule(im.Host, im.Repository)
		p.Asked(r, p.Known(r, im), "v1")
		p.Rule("elsewhere.example.com", "app")
	})
	if allocs != 0 {
		t.Errorf("a hit allocates %v times", allocs)
	}
}
