package upstream

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
)

// tokenSource keeps an ECR authorization token fresh for everyone who shares
// it: one goroutine renews it at half its life; while that fails the old one
// serves until it truly expires. Nothing is asked before the first use.
//
// A token is bound to the caller's identity and a region, and good for every
// account in it (ECR user guide, "Common errors for Docker commands").
type tokenSource struct {
	ask     func(ctx context.Context) (ecrToken, error)
	now     func() time.Time
	log     *slog.Logger
	ctx     context.Context // ends the goroutine
	renewer *sync.WaitGroup // of the goroutines; who has it waits

	mu      sync.Mutex // guards what follows; not held while asking
	token   ecrToken
	failure error         // of the latest attempt, if it failed
	pause   time.Duration // how long that failure is not repeated
	resume  time.Time     // when pause ends
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
	// minRenewal keeps a token of a very short life from being renewed in a loop.
	minRenewal = time.Second
	// firstPause and maxPause space attempts that fail.
	firstPause = time.Second
	maxPause   = time.Minute
)

// get returns a token that has not expired.
func (s *tokenSource) get(ctx context.Context) (string, error) {
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	if token.value != "" && s.now().Before(token.until()) {
		return token.value, nil
	}
	return s.replace(ctx, token.value)
}

// renew gets a token in place of one that ECR refused, unless that has been
// done already.
func (s *tokenSource) renew(ctx context.Context, refused string) error {
	_, err := s.replace(ctx, refused)
	return err
}

// replace returns a token newer than old, and asks for it once however many
// want it. What an attempt gave is newer even where it reads the same: some
// emulators of ECR have one token for ever.
func (s *tokenSource) replace(ctx context.Context, old string) (string, error) {
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
		switch {
		case s.failure != nil || s.ctx.Err() != nil:
		case s.token.value == "":
			s.log.Warn("no ECR token", "error", err)
		default:
			s.log.Warn("no new ECR token; the old one serves while it lasts", "error", err, "until", s.token.until())
		}
		s.failure = err
		s.pause = min(max(2*s.pause, firstPause), maxPause)
		s.resume = s.now().Add(s.pause)
		return
	}
	if s.failure != nil {
		s.log.Info("ECR tokens can be had again")
	}
	s.token, s.failure, s.pause = token, nil, 0
}

// keepFresh renews at half life until the source is closed.
func (s *tokenSource) keepFresh() {
	for {
		s.mu.Lock()
		at := s.token.obtained.Add(max(s.token.life/2, minRenewal))
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
		if _, err := s.replace(s.ctx, old.value); err != nil && s.ctx.Err() != nil {
			return
		}
	}
}

// token calls GetAuthorizationToken. The life of the token is what counts, not
// the wall clock, so it is kept as a duration.
func (a *ecrAPI) token(ctx context.Context) (ecrToken, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, errTimeout)
	defer cancel()
	api, err := a.connect(ctx)
	if err != nil {
		return ecrToken{}, err
	}
	out, err := api.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return ecrToken{}, &credentialsError{"get an ECR token for " + a.host.Region, err}
	}
	if len(out.AuthorizationData) == 0 || aws.ToString(out.AuthorizationData[0].AuthorizationToken) == "" {
		return ecrToken{}, &credentialsError{"get an ECR token for " + a.host.Region, errNoToken}
	}
	data := out.AuthorizationData[0]
	now := a.now()
	life := defaultECRLife
	if data.ExpiresAt != nil {
		if d := data.ExpiresAt.Sub(now); 0 < d && d < 2*defaultECRLife {
			life = d
		}
	}
	return ecrToken{value: *data.AuthorizationToken, obtained: now, life: life}, nil
}
