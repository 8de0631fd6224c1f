package cache

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// ageKey is the key of a question's age in its context.
type ageKey struct{}

// withAge returns a context under which [Aged] sets age, in nanoseconds.
func withAge(ctx context.Context) (marked context.Context, age *atomic.Int64) {
	age = new(atomic.Int64)
	return context.WithValue(ctx, ageKey{}, age), age
}

// Aged says how long ago the upstream confirmed what the answer to a question about a tag or a list of
// referrers says, if that was not now: the answer comes from another cache. ctx is that of the question. Of
// several ages, the largest counts.
func Aged(ctx context.Context, age time.Duration) {
	known, ok := ctx.Value(ageKey{}).(*atomic.Int64)
	for ok {
		before := known.Load()
		if before >= int64(age) || known.CompareAndSwap(before, int64(age)) {
			return
		}
	}
}

// TagChecked returns when the upstream last confirmed a tag. It is zero if the tag is not known.
func (s *Store) TagChecked(repo Repository, tag string) time.Time {
	memo, _ := s.tag(tagID{repo, tag})
	return memo.Checked
}

// ReferrersChecked returns when the upstream last gave a list of referrers. It is zero if there is none.
func (s *Store) ReferrersChecked(repo Repository, subject digest.Digest) time.Time {
	return s.referrersOf(RepoDigest{Repository: repo, Digest: subject}).Checked
}

// Has reports whether a blob or a manifest is in the cache, or a fill that runs is about to bring it. It
// does not say for which repositories.
func (s *Store) Has(d digest.Digest) bool {
	if CheckDigest(d) != nil {
		return false
	}
	if s.blobs.IsFilling(d) {
		return true
	}
	_, err := s.blobs.Stat(d)
	return err == nil
}
