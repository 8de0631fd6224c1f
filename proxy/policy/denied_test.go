package policy

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// asked decides about an image as a client's request does.
func asked(t *testing.T, p *Policy, im Image, reference string) {
	t.Helper()
	r := p.Rule(im.Host, im.Repository)
	p.Asked(r, decide(t, p, im, shelf{}), reference)
}

func TestDeniedListsWhatTheRulesDoNotAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policy.json")
		c := new(condition)
		c.set(image("bad", oci), Answer{Reason: "it has no signature"}, nil)
		c.set(image("good", oci), Answer{Holds: true}, nil)
		warning := func() *Rule {
			r := rule(host + "/prod/*")
			r.Signed, r.Mode = c, Warn
			return r
		}
		p := newPolicy(t, Options{File: file}, warning())
		for _, reference := range []string{"v1", "v2"} {
			asked(t, p, image("bad", oci), reference)
		}
		asked(t, p, image("good", oci), "v3")
		check := func(when string, p *Policy) {
			t.Helper()
			all := p.Denied()
			if len(all) != 1 || all[0].Digest != image("bad", oci).Digest || all[0].Reference != "v2" || all[0].Mode != Warn || all[0].Why() != "signed: it has no signature" {
				t.Errorf("%s: %+v", when, all)
			}
		}
		check("at first", p)
		if n := p.Denied()[0].Requests; n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
		p.save()
		check("after a restart", newPolicy(t, Options{File: file}, warning()))
		if got := p.Status(0).Rules[0]; got != (RuleStatus{host + "/prod/*", Warn, 1, 2, 0, 1}) {
			t.Errorf("the rule came to %+v", got)
		}
		p.Use([]*Rule{warning()})
		if got := p.Status(0).Rules[0]; got.Refused != 2 {
			t.Errorf("after a reload: %+v", got)
		}

		c.set(image("bad", oci), Answer{Holds: true}, nil) // it is signed
		pass(refusedFor)
		decide(t, p, image("bad", oci), shelf{})
		if all := p.Denied(); len(all) != 0 {
			t.Errorf("after it was signed: %+v", all)
		}
		p.Use(nil)
		if st := p.Status(0); st != nil {
			t.Errorf("without rules: %+v", st)
		}
	})
}

func TestDeniedIsBounded(t *testing.T) {
	r := rule(host + "/prod/*")
	r.Signed = new(condition) // which refuses
	p := newPolicy(t, Options{}, r)
	for i := range maxDenied + 10 {
		asked(t, p, image(fmt.Sprint(i), oci), "v1")
	}
	all := p.Denied()
	if len(all) != maxDenied || all[0].Digest != image(fmt.Sprint(maxDenied+9), oci).Digest {
		t.Errorf("%d images are listed, and the latest is %s", len(all), all[0].Digest)
	}
}
