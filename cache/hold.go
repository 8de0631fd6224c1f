package cache

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
)

// Whose turn it is to change the files of a blob: one fill, one put or one
// removal at a time. Fills are in Store.filling, the others in Store.held.

var errFilling = errors.New("a fill of it runs")

// shut keeps everybody else from a blob until unshut, and reports false where
// somebody has it.
func (s *Store) shut(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filling[d] != nil || s.held[d] != nil {
		return false
	}
	s.held[d] = make(chan struct{})
	return true
}

// hold is shut for one who can wait, but not for a fill: that may take as long
// as the upstream likes.
func (s *Store) hold(ctx context.Context, d digest.Digest) error {
	for !s.shut(d) {
		s.mu.Lock()
		filling := s.filling[d] != nil
		s.mu.Unlock()
		if filling {
			return errFilling
		}
		if err := s.awaitTurn(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) unshut(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.held[d])
	delete(s.held, d)
}

// awaitTurn waits until nobody holds a blob. That stays so for a fill, which is
// in Store.filling by then.
func (s *Store) awaitTurn(ctx context.Context, d digest.Digest) error {
	s.mu.Lock()
	held := s.held[d]
	s.mu.Unlock()
	if held == nil {
		return nil
	}
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gate is a mutex that need not be waited for to the end.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

func (g gate) lock(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
