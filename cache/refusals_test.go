package cache

// White-box: how much is remembered does not show from outside.

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestRememberedMissesAreBoundedByWhatTheyTake(t *testing.T) {
	r, now := newRefusals(), time.Now()
	missing := fmt.Errorf("asked for it: %w", fmt.Errorf("%w: %s", fs.ErrNotExist, strings.Repeat("x", 2000)))
	key := func(i int) string { return fmt.Sprintf("tag/registry.test/%s:%d", strings.Repeat("r", 200), i) }
	const asked = 18_000
	for i := range asked {
		r.add(key(i), missing, now.Add(time.Minute))
	}
	sum := 0
	for _, k := range r.list.Keys() {
		known, _ := r.list.Peek(k)
		sum += len(k) + len(known.value.err.Error()) + len(errors.Unwrap(known.value.err).Error())
	}
	if sum > memoryRefusals || r.bytes > memoryRefusals || r.bytes < sum {
		t.Errorf("the texts of %d refusals have %d bytes, counted as %d; at most %d may be kept", r.list.Len(), sum, r.bytes, memoryRefusals)
	}
	if err := r.get(key(asked-1), now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the latest: %v", err)
	}
	if err := r.get(key(0), now); err != nil {
		t.Errorf("the first of too many: %v", err)
	}
}

func TestRefusalsThatAreOverTakeNothing(t *testing.T) {
	r, now := newRefusals(), time.Now()
	for range 3 {
		r.add("tag/a", fs.ErrNotExist, now.Add(time.Second))
	}
	if err := r.get("tag/a", now.Add(time.Second)); err != nil || r.bytes != 0 || r.list.Len() != 0 {
		t.Errorf("%v, %d bytes of %d refusals after their time", err, r.bytes, r.list.Len())
	}
	r.add("tag/b", errors.New(strings.Repeat("x", memoryRefusals)), now.Add(time.Second))
	if r.bytes != 0 {
		t.Errorf("a refusal that is larger than the bound takes %d bytes", r.bytes)
	}
}
