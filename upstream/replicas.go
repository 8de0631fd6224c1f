package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/reply"
)

// Replication copies repositories to other regions under the same names (ECR
// user guide, "Private image replication"). A copy may be late, or lack
// something. So a replica is asked only for what has a known digest, never for a
// tag; and only its yes counts, as it is for the primary to say that something
// does not exist or is denied.

// tryPatience is how long somebody who could go elsewhere waits for a registry
// that has failed.
const tryPatience = 3 * time.Second

// addReplicas makes the registries to which r's content is replicated. Each has
// its own credentials, limits and signed URLs, for its own host alone.
func (c *Client) addReplicas(r *Registry, cfg Config) error {
	for _, host := range cfg.ECR.Replicas {
		own, ok := c.lookup(host)
		if !ok {
			own = Config{Host: host, Timeout: cfg.Timeout}
		}
		own.ECR.Replicas = nil
		if own.ECR.Identity == (Identity{}) {
			own.ECR.Identity = cfg.ECR.Identity
		}
		replica, err := c.newRegistry(own)
		if err != nil {
			return fmt.Errorf("replica of %s: %w", cfg.Host, err)
		}
		r.replicas = append(r.replicas, replica)
	}
	return nil
}

// place is a registry to ask.
type place struct {
	*Registry
	lastResort bool // it is known to fail, and no other has answered
}

// withReplicas asks what any copy can answer: the registry itself, then its
// replicas, and those last that are known to fail. What the answer consists of
// can be used until done is called.
func withReplicas[T any](ctx context.Context, r *Registry, spare bool, ask func(context.Context, *Registry) (T, error)) (got T, done func(), err error) {
	queue := []place{{Registry: r}}
	for _, replica := range r.replicas {
		queue = append(queue, place{Registry: replica})
	}
	var primary, others error
	for len(queue) > 0 && ctx.Err() == nil {
		p := queue[0]
		queue = queue[1:]
		try := false
		if !p.lastResort {
			var ok bool
			if ok, try = p.breaker.Enter(); !ok {
				queue = append(queue, place{p.Registry, true})
				continue
			}
		}
		patience := r.timeout
		switch {
		case try, p.lastResort:
			patience = min(tryPatience, r.timeout/2)
		case len(queue) > 0:
			patience = r.timeout / 2 // leaves a client time for the others
		}
		got, done, err = within(ctx, patience, func(ctx context.Context) (T, error) { return ask(ctx, p.Registry) })
		if spare && reply.IsThrottled(err) || reply.CallerLeft(ctx) {
			p.breaker.Abandoned(try)
			return got, done, err
		}
		p.settle(err, try)
		switch {
		case err == nil, p.Registry == r && !isOutage(err):
			return got, done, err
		case p.Registry == r:
			primary = err
		default:
			others = errors.Join(others, fmt.Errorf("replica %s: %w", p.host, err))
		}
	}
	switch {
	case primary == nil: // it was not even its turn
		primary = fmt.Errorf("ask %s: %w", r.host, context.Cause(ctx))
	case others == nil:
		return got, nil, primary
	}
	return got, nil, &outageError{primary, others}
}

// within bounds how long an answer takes. What it consists of can be used until
// done is called; where there is an error, done is nil.
func within[T any](ctx context.Context, patience time.Duration, ask func(context.Context) (T, error)) (got T, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { cancel(reply.ErrTimeout) })
	defer timer.Stop()
	if got, err = ask(ctx); err != nil {
		cancel(nil)
		return got, nil, err
	}
	return got, func() { cancel(nil) }, nil
}

// settle has the registry's breaker know of an outcome.
func (r *Registry) settle(err error, try bool) {
	if !isOutage(err) {
		if r.breaker.Succeeded() {
			r.log.Info("the registry answers again")
		}
		return
	}
	if r.breaker.Failed(try, errors.Is(err, reply.ErrTimeout)) {
		r.log.Warn("the registry fails; it is asked last until it answers again", "error", err)
	}
}

// isOutage reports an error after which another registry may do better.
func isOutage(err error) bool {
	var refusal *reply.Error
	var refused *guard.RefusedError
	switch {
	case err == nil, errors.As(err, &refused), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return false
	case reply.IsThrottled(err):
		return true
	case errors.As(err, &refusal):
		return refusal.Status >= http.StatusInternalServerError
	}
	return true // no answer, or no token to ask with
}

// outageError is that neither a registry nor a replica answered. It is what
// happened at the registry itself; the rest is for who reads it.
type outageError struct {
	primary, others error
}

func (e *outageError) Error() string { return fmt.Sprintf("%v; %v", e.primary, e.others) }
func (e *outageError) Unwrap() error { return e.primary }

// replicatedManifest is manifest for a registry that has replicas. What happens
// with a tag counts as a sign of life too.
func (r *Registry) replicatedManifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if _, err := digest.Parse(reference); err != nil {
		desc, raw, err := r.manifest(ctx, repository, reference, head)
		if !reply.CallerLeft(ctx) {
			r.settle(err, false)
		}
		return desc, raw, err
	}
	type manifest struct {
		ocispec.Descriptor
		raw []byte
	}
	got, done, err := withReplicas(ctx, r, false, func(ctx context.Context, at *Registry) (manifest, error) {
		desc, raw, err := at.manifest(ctx, repository, reference, head)
		return manifest{desc, raw}, err
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	done()
	return got.Descriptor, got.raw, nil
}
