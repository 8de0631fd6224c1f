package policy

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestChildIsAllowedThroughItsIndexButForItsFindings(t *testing.T) {
	signatures, scans := new(condition), new(condition)
	list, child, bad, other := image("index", index), image("child", oci), image("bad", oci), image("other", oci)
	for _, im := range []Image{child, bad, other} {
		signatures.set(im, Answer{Reason: "it has no signature"}, nil)
		scans.set(im, Answer{Holds: im != bad, Reason: "CVE-2026-0001"}, nil)
	}
	signatures.set(list, Answer{Holds: true}, nil)
	content := shelf{naming: map[digest.Digest][]Image{child.Digest: {list}, bad.Digest: {list}}}
	r := rule(host + "/prod/*")
	r.Signed, r.Findings = signatures, scans
	p := newPolicy(t, Options{}, r)
	for im, want := range map[Image]Result{list: Allowed, child: Allowed, bad: Refused, other: Refused} {
		if d := decide(t, p, im, content); d.Result != want {
			t.Errorf("%s is %s, want %s", im.Digest, d, want)
		}
	}
	if d := decide(t, p, child, content); d.Via != list.Digest {
		t.Errorf("the child is allowed through %q", d.Via)
	}
	if _, asked := scans.answer[list.Digest]; asked || scans.asked.Load() != 3 {
		t.Errorf("findings were asked %d times, want once for each platform", scans.asked.Load())
	}
}

func TestChildOfAnUndecidedIndexIsNotRefused(t *testing.T) {
	list, child := image("index", index), image("child", oci)
	r := rule(host + "/prod/*")
	r.Signed = undecidedIndex{}
	p := newPolicy(t, Options{}, r)
	if d := decide(t, p, child, shelf{naming: map[digest.Digest][]Image{child.Digest: {list}}}); d.Result != Unknown {
		t.Errorf("got %s: %s", d.Result, d)
	}
}

// undecidedIndex has no signature for images and cannot tell for indexes.
type undecidedIndex struct{}

func (undecidedIndex) Evaluate(_ context.Context, im Image) (Answer, error) {
	if isIndex(im.MediaType) {
		return Answer{}, errors.New("throttled")
	}
	return Answer{Reason: "it has no signature"}, nil
}
