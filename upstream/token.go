package upstream

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	"github.com/cenkalti/backoff/v5"

	"github.com/larder-registry/larder/upstream/pace"
)

// tokenSource keeps an ECR authorization token fresh for everyone who shares it.
// One goroutine renews it at half its life; while that fails the old one
// serves until it truly expires, by a clock that nobody sets (the monotonic part
// of now), and attempts come ever more rarely. Nothing is asked before the first
// use.
//
// A token is bound to the caller's identity and a region, and good for every
// account in it (ECR user guide, "Common errors for Docker commands").
type tokenSource struct {
	ask     func(ctx context.Context) (ecrToken, error)
	now     func() time.Time
	log     *slog.Logger
	ctx     context.Context // ends the goroutine
	renewer *sync.WaitGroup // of the goroutines; who has it waits
	// optional says that those who ask can do without: they wait for the first
	// attempt only, and one that failed is repeated more rarely.
	optional bool

	mu      sync.Mutex // guards what follows; not held while asking
	token   ecrToken
	renewAt time.Time // when token is to be replaced
	failure error     // of the latest attempt, if it failed
	expired bool      // the token had, by that failure
	pauses  *backoff.ExponentialBackOff
	resume  time.Time // when the failure may be repeated
	asking  chan struct{}
	started bool
}

// ecrToken is the value of a Basic Authorization header.
type ecrToken struct {
	value    string
	obtained time.Time
	life     time.Duration
}

func (t ecrToken) until() time.Time { return t.obtained.Add(t.life) }

const (
	// defaultECRLife is the life of a token by the API reference of
	// GetAuthorizationToken. It stands in for an expiry that cannot be.
	defaultECRLife = 12 * time.Hour
	// renewalSpread is by how much of its life a token's renewal is put off at
	// random, so that nodes that started together do not ask together for ever.
	renewalSpread = 0.1
	// minRenewal keeps a token of a very short life from being renewed in a loop.
	minRenewal = time.Second
	// firstPause and maxPause space attempts that fail.
	firstPause = time.Second
	maxPause   = time.Minute
	// firstOptionalPause and maxOptionalPause are for tokens that it goes without:
	// most nodes may not have one, and that does not change by the minute.
	firstOptionalPause = time.Minute
	maxOptionalPause   = time.Hour
)

// get returns a token that has not expired.
func (s *tokenSource) get(ctx context.Context) (string, error) {
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	if token.value != "" && s.now().Before(token.until()) {
		return token.value, nil
	}
	return s.replace(ctx, token.value, !s.optional)
}

// renew returns a token in place of one that ECR refused, and asks for it unless
// that has been done already.
func (s *tokenSource) renew(ctx context.Context, refused string) (string, error) {
	return s.replace(ctx, refused, true)
}

// replace returns a token newer than old, and asks for it once however many
// want it. What an attempt gave is newer even where it reads the same: some
// emulators of ECR have one token for ever. Who is not patient does not wait for
// an attempt that follows one that failed.
func (s *tokenSource) replace(ctx context.Context, old string, patient bool) (string, error) {
	var attempted bool
	for {
		s.mu.Lock()
		token := s.token
		if token.value != old && s.now().Before(token.until()) {
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
func (s *tokenSource) attempt() {
	token, err := s.ask(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.asking)
	s.asking = nil
	s.settleLocked(token, err)
	if err == nil && !s.started {
		s.started = true
		s.renewer.Go(s.keepFresh)
	}
}

// unused reports a source that never had a token, as for a region that does not
// exist. It holds nothing that would have to be ended.
func (s *tokenSource) unused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.started && s.asking == nil
}

// settleLocked takes over the outcome of an attempt. The log has a line when
// things change, not one for every failure.
func (s *tokenSource) settleLocked(token ecrToken, err error) {
	if err != nil {
		expired := s.token.value != "" && !s.now().Before(s.token.until())
		switch {
		case s.ctx.Err() != nil:
		case expired && !s.expired && s.optional:
			s.log.Warn("ECR Public is asked anonymously, as the token for it has expired and no new one is to be had", "error", err)
		case expired && !s.expired:
			s.log.Error("the ECR token has expired, and no new one is to be had; what is not cached cannot be pulled", "error", err)
		case s.failure != nil:
		case s.token.value == "" && s.optional:
			s.log.Info("ECR Public is asked anonymously, as the AWS credentials get no token for it", "error", err)
		case s.token.value == "":
			s.log.Warn("no ECR token", "error", err)
		default:
			s.log.Warn("no new ECR token; the old one serves while it lasts", "error", err, "until", s.token.until())
		}
		s.failure, s.expired = err, expired
		s.resume = s.now().Add(s.pauses.NextBackOff())
		return
	}
	if s.failure != nil {
		s.log.Info("ECR tokens can be had again")
	}
	s.token, s.failure, s.expired = token, nil, false
	s.pauses = pace.NewBackoff(firstPause, maxPause)
	spread := time.Duration(rand.Float64() * renewalSpread * float64(token.life))
	s.renewAt = token.obtained.Add(max(token.life/2+spread, minRenewal))
}

// keepFresh renews at half life until the source is closed.
func (s *tokenSource) keepFresh() {
	for {
		s.mu.Lock()
		at := s.renewAt
		if s.failure != nil {
			at = s.resume
		}
		old := s.token
		s.mu.Unlock()
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
		if again {
			continue // somebody renewed it meanwhile
		}
		if _, err := s.replace(s.ctx, old.value, true); err != nil && s.ctx.Err() != nil {
			return
		}
	}
}

// tokenLife is how long a token that has just been issued lives, by the clock of
// the service that issued it: the one here may be off by hours. A life that
// cannot be is replaced by the documented one.
func tokenLife(expires *time.Time, answer middleware.Metadata, now time.Time) time.Duration {
	if issued, ok := awsmiddleware.GetServerTime(answer); ok {
		now = issued
	}
	if expires != nil {
		if life := expires.Sub(now); 0 < life && life < 2*defaultECRLife {
			return life
		}
	}
	return defaultECRLife
}
