package ecr

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	"github.com/cenkalti/backoff/v5"

	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// tokens keeps an ECR authorization token fresh for all registries that share it.
// One goroutine renews it at half its life. While that fails, the old token is used
// until it expires, by a clock that nobody sets (the monotonic part of now), and
// the pauses between attempts grow. Nothing is asked before the first use.
//
// A token is bound to the caller's identity and a region, and good for every
// account in it (ECR user guide, "Common errors for Docker commands").
type tokens struct {
	ask     func(ctx context.Context) (token, error)
	gate    *offline.Gate // stands before ask
	counter *telemetry.Tokens
	now     func() time.Time
	log     *slog.Logger
	ctx     context.Context // ends the goroutine
	renewer *sync.WaitGroup // of the goroutines
	// optional says that callers can do without a token: they wait for the first
	// attempt only, and one that failed is repeated after longer pauses.
	optional bool

	mu      sync.Mutex // guards what follows; not held while asking
	token   token
	renewAt time.Time // when token is to be replaced
	failure error     // of the latest attempt, if it failed
	expired bool      // the token had, by that failure
	pauses  *backoff.ExponentialBackOff
	resume  time.Time // when the failure may be repeated
	asking  chan struct{}
	started bool
}

// token is the value of a Basic Authorization header.
type token struct {
	value    string
	obtained time.Time
	life     time.Duration
}

func (t token) expires() time.Time { return t.obtained.Add(t.life) }

const (
	// defaultLife is the life of a token by the API reference of
	// GetAuthorizationToken. It replaces an impossible expiry.
	defaultLife = 12 * time.Hour
	// renewalSpread is the part of its life by which a token's renewal is put off at
	// random, so that nodes that started together do not always ask together.
	renewalSpread = 0.1
	// minRenewal keeps a token of a very short life from being renewed in a loop.
	minRenewal = time.Second
	// firstPause and longestPause space attempts that fail.
	firstPause   = time.Second
	longestPause = time.Minute
	// firstOptionalPause and longestOptionalPause are for optional tokens until the
	// first one: most nodes may not have one, and that rarely changes.
	firstOptionalPause   = time.Minute
	longestOptionalPause = time.Hour
)

// get returns a token that has not expired.
func (s *tokens) get(ctx context.Context) (string, error) {
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	if token.value != "" && s.now().Before(token.expires()) {
		return token.value, nil
	}
	return s.replace(ctx, token.value, !s.optional)
}

// renew returns a token in place of one that ECR refused. Concurrent callers share
// one request.
func (s *tokens) renew(ctx context.Context, refused string) (string, error) {
	return s.replace(ctx, refused, true)
}

// replace returns a token newer than old. Concurrent callers share one request for
// it. The result of an attempt is newer even if it is equal: some emulators of ECR
// always return the same token. A caller that is not patient does not wait for an
// attempt after one that failed.
func (s *tokens) replace(ctx context.Context, old string, patient bool) (string, error) {
	var attempted bool
	for {
		s.mu.Lock()
		token := s.token
		if token.value != old && s.now().Before(token.expires()) {
			s.mu.Unlock()
			return token.value, nil
		}
		if s.failure != nil && (attempted || s.now().Before(s.resume)) {
			defer s.mu.Unlock()
			return "", s.failure
		}
		if attempted {
			s.mu.Unlock()
			return token.value, nil
		}
		if s.asking == nil {
			s.asking = make(chan struct{})
			s.renewer.Go(s.attempt)
		}
		asking := s.asking
		if !patient && s.failure != nil {
			defer s.mu.Unlock()
			return "", s.failure
		}
		s.mu.Unlock()
		select {
		case <-asking:
			attempted = true
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// attempt asks once, and begins the renewals after the first success.
func (s *tokens) attempt() {
	token, err := s.askOnline()
	switch {
	case err == nil:
		s.counter.Obtained(token.obtained, token.life)
	case s.ctx.Err() == nil && !offline.Is(err): // else it failed because the client closes
		s.counter.Failed()
	}
	s.mu.Lock()
	report := s.settleLocked(token, err)
	asking := s.asking
	s.asking = nil
	if err == nil && !s.started {
		s.started = true
		s.renewer.Go(s.keepFresh)
	}
	s.mu.Unlock()
	report()
	close(asking)
}

// askOnline asks unless all registries are offline.
func (s *tokens) askOnline() (token, error) {
	ctx, leave, err := s.gate.Enter(s.ctx)
	if err != nil {
		return token{}, err
	}
	defer leave()
	got, err := s.ask(ctx)
	if cause := context.Cause(ctx); err != nil && offline.Is(cause) {
		err = cause
	}
	return got, err
}

// unused reports that there never was a token, as for a region that does not
// exist. Then there is no goroutine to end.
func (s *tokens) unused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.started && s.asking == nil
}

// settleLocked records the outcome of an attempt. report logs it without the lock:
// a line for a change, not for every failure.
func (s *tokens) settleLocked(token token, err error) (report func()) {
	if offline.Is(err) { // since a request asked for a token: the next one finds out
		s.failure, s.resume = err, s.now()
		return func() {}
	}
	if err != nil {
		report = s.failureLocked(err)
		s.failure, s.expired = err, s.hasExpiredLocked()
		s.resume = s.now().Add(s.pauses.NextBackOff())
		return report
	}
	report = func() {}
	if s.failure != nil {
		report = func() { s.log.Info("ECR gives tokens again") }
	}
	s.token, s.failure, s.expired = token, nil, false
	s.pauses = pace.NewBackoff(firstPause, longestPause)
	spread := time.Duration(rand.Float64() * renewalSpread * float64(token.life))
	s.renewAt = token.obtained.Add(max(token.life/2+spread, minRenewal))
	return report
}

// failureLocked returns the report of a failure, by the state before it.
func (s *tokens) failureLocked(err error) (report func()) {
	expires, missing, expired := s.token.expires(), s.token.value == "", s.hasExpiredLocked()
	switch {
	case s.ctx.Err() != nil, expired && s.expired, !expired && s.failure != nil:
		return func() {}
	case expired && s.optional:
		return func() {
			s.log.Warn("ECR Public is asked anonymously, as the token for it has expired and there is no new one", "error", err)
		}
	case expired:
		return func() {
			s.log.Error("the ECR token has expired and there is no new one; content that is not cached cannot be pulled", "error", err)
		}
	case missing && s.optional:
		return func() {
			s.log.Info("ECR Public is asked anonymously, as the AWS credentials get no token for it", "error", err)
		}
	case missing:
		return func() { s.log.Warn("no ECR token", "error", err) }
	}
	return func() {
		s.log.Warn("no new ECR token; the old one is used until it expires", "error", err, "until", expires)
	}
}

func (s *tokens) hasExpiredLocked() bool {
	return s.token.value != "" && !s.now().Before(s.token.expires())
}

// keepFresh renews at half life until the source is closed. While all registries are
// offline it looks from time to time whether they still are.
func (s *tokens) keepFresh() {
	for {
		s.mu.Lock()
		at := s.renewAt
		if s.failure != nil {
			at = s.resume
		}
		old := s.token
		s.mu.Unlock()
		if later := s.now().Add(longestPause); s.gate.Check() != nil && at.Before(later) {
			at = later
		}
		timer := time.NewTimer(max(at.Sub(s.now()), 0))
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		s.mu.Lock()
		again := s.token != old
		s.mu.Unlock()
		if again || s.gate.Check() != nil {
			continue // a refused request renewed it, or nothing may be asked
		}
		if _, err := s.replace(s.ctx, old.value, true); err != nil && s.ctx.Err() != nil {
			return
		}
	}
}

// tokenLife returns the life of a token that has just been issued, by the clock of
// the service: the one of this machine may be off by hours. An impossible life is
// replaced by the documented one.
func tokenLife(expires *time.Time, answer middleware.Metadata, now time.Time) time.Duration {
	if issued, ok := awsmiddleware.GetServerTime(answer); ok {
		now = issued
	}
	if expires != nil {
		if life := expires.Sub(now); 0 < life && life < 2*defaultLife {
			return life
		}
	}
	return defaultLife
}

// Token is the state of a registry's token. Times that are not known are zero.
type Token struct {
	Obtained, Expires time.Time
	// Err is why there is no newer token, or nil.
	Err error
}

// state is for [Registry.Token].
func (s *tokens) state() Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := Token{Err: s.failure}
	if s.token.value != "" {
		t.Obtained, t.Expires = s.token.obtained, s.token.expires()
	}
	return t
}
