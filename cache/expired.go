package cache

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Expire makes images that have expired the first to be evicted, the oldest expiry first,
// each before what it needs and no other image does. It replaces earlier calls, and is valid
// after a restart. What is used after that, by an image or by itself, is evicted like the
// others again until the next call, or the next start.
//
// A digest that several repositories have has expired when it has in all of them. Nothing
// that another image needs is evicted with an expired one. Verdicts on what is not in the
// cache are dropped. It is no error if the disk does not take the verdicts.
func (s *Store) Expire(verdicts []Verdict) error {
	if err := s.awaitLoaded(); err != nil {
		return err
	}
	s.expiring.Lock()
	defer s.expiring.Unlock()
	kept, err := s.applyVerdicts(verdicts)
	if err != nil {
		return err
	}
	if err := s.index.ReplaceVerdicts(kept); err != nil {
		s.blobs.Trouble(slog.LevelWarn, "the verdicts of lifecycle rules were not recorded; a restart forgets them", err)
	}
	return nil
}

// Verdicts returns what the latest call of Expire kept, less what was evicted or removed
// since. It is valid after a restart.
func (s *Store) Verdicts() ([]Verdict, error) { return s.index.Verdicts() }

// expireAgain applies the verdicts of the process before this one.
func (s *Store) expireAgain() error {
	s.expiring.Lock()
	defer s.expiring.Unlock()
	verdicts, err := s.index.Verdicts()
	if err != nil || len(verdicts) == 0 {
		return err
	}
	_, err = s.applyVerdicts(verdicts)
	return err
}

// applyVerdicts is Expire without the records. It returns the verdicts on what is in the
// cache. The caller has locked s.expiring.
func (s *Store) applyVerdicts(verdicts []Verdict) (kept []Verdict, err error) {
	watch := s.items.Watch() // what comes from now on may need what looks expired
	defer s.items.EndWatch(watch)
	c, err := s.readCatalog()
	if err != nil {
		return nil, err
	}
	for _, v := range verdicts {
		if c.HasManifest(v.Digest) {
			kept = append(kept, v)
		}
	}
	images, err := s.expiredEverywhere(kept)
	if err != nil {
		return nil, err
	}
	s.items.Expire(c.OnlyNeededBy(images), watch)
	return kept, nil
}

// expiredEverywhere returns the digests that have expired in all repositories that are known
// to have them, the oldest expiry first. Such a digest has expired when it did in the last of
// them.
func (s *Store) expiredEverywhere(verdicts []Verdict) ([]digest.Digest, error) {
	in := make(map[digest.Digest]map[Repository]bool)
	since := make(map[digest.Digest]time.Time)
	for _, v := range verdicts {
		if in[v.Digest] == nil {
			in[v.Digest] = make(map[Repository]bool)
		}
		in[v.Digest][v.Repository] = true
		if since[v.Digest].Before(v.Since) {
			since[v.Digest] = v.Since
		}
	}
	var digests []digest.Digest
	for d, repos := range in {
		all, err := s.index.Repositories(d, 0)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(r Repository) bool { return !repos[r] }) {
			digests = append(digests, d)
		}
	}
	slices.SortFunc(digests, func(a, b digest.Digest) int {
		if c := since[a].Compare(since[b]); c != 0 {
			return c
		}
		return strings.Compare(string(a), string(b))
	})
	return digests, nil
}
