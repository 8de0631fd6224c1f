package upkeep

import (
	"context"
	"time"

	"github.com/larder-registry/larder/cache"
)

// What Run does at its own pace, tests do at once: the upstream is a server on a
// socket, whose answers synctest's clock does not wait for.

// Apply is one round of Run, a day after the one before, without pauses. It reads
// every policy, as if eviction were near.
func (l *Lifecycle) Apply(ctx context.Context) error {
	for _, last := range l.ecr.readings.of {
		last.checked = time.Time{}
	}
	before := l.ecr.now
	l.ecr.now = func() time.Time { return before().Add(describeEvery) }
	l.ecr.pause, l.ecr.indexes.pause, l.gone.pause = 0, 0, 0
	return l.apply(ctx)
}

// SetClock has policies become due by another clock.
func (l *Lifecycle) SetClock(now func() time.Time) { l.ecr.now = now }

// ReadPolicies is the part of a round that asks ECR, now and without pauses.
func (l *Lifecycle) ReadPolicies(ctx context.Context) error {
	l.ecr.pause, l.ecr.indexes.pause = 0, 0
	_, err := l.ecr.expired(ctx)
	return err
}

// SetClock has the tags' settings expire by another clock.
func (t *ImmutableTags) SetClock(now func() time.Time) { t.now = now }

// ReadQueued reads the repositories that Since was asked about until now.
func (t *ImmutableTags) ReadQueued(ctx context.Context) {
	t.pause = 0
	for len(t.queue) > 0 {
		t.read(ctx, <-t.queue)
	}
}

// MutabilityTTL is how long a setting holds.
const MutabilityTTL = mutabilityTTL

// SetClock has images become due by another clock.
func (k *KeepAlive) SetClock(now func() time.Time) { k.now = now }

// Round is one round of Run, without pauses.
func (k *KeepAlive) Round(ctx context.Context) error {
	k.pause = 0
	return k.round(ctx)
}

// Earliest is earliest.
func Earliest(a, b []cache.Verdict) []cache.Verdict { return earliest(a, b) }
