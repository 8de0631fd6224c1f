package ecr

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/auth"
)

// ECR Public gives anonymous clients a bearer token from the service that its
// challenge names. Its API gives callers with the permissions
// ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken a user name and
// password for that service, which allow more pulls.

// signedWait bounds how long a client waits for the first attempt to get
// credentials. There may be none: off AWS nothing answers at the address of the
// instance metadata.
const signedWait = 3 * time.Second

// PublicLogins has the user name and password that ECR Public's API gives for its
// token service, and an anonymous login while there are none. It is an
// [auth.Logins], and safe for concurrent use.
type PublicLogins struct {
	tokens   *tokens
	ctx      context.Context // ends with the client
	log      *slog.Logger
	refusals *auth.Refusals

	mu  sync.Mutex // guards bad
	bad auth.Login // refused, with nothing new in its place
}

func newPublicLogins(ctx context.Context, tokens *tokens, log *slog.Logger, now func() time.Time) *PublicLogins {
	return &PublicLogins{tokens: tokens, ctx: ctx, log: log, refusals: auth.NewRefusals(now)}
}

// Login is for [auth.Logins].
func (p *PublicLogins) Login(ctx context.Context) (auth.Login, error) {
	ctx, cancel := context.WithTimeout(ctx, signedWait)
	defer cancel()
	token, err := p.tokens.get(ctx)
	if err != nil {
		return auth.Login{}, nil // anonymous requests are allowed, and the error is logged
	}
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return auth.Login{}, auth.NewError("read the token of ECR Public", err)
	}
	username, password, _ := strings.Cut(string(raw), ":")
	l := auth.Login{Username: username, Password: password}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l == p.bad {
		return auth.Login{}, nil
	}
	return l, nil
}

// From is for [auth.Logins].
func (*PublicLogins) From() string { return "ECR Public's API, by AWS credentials" }

// Refused renews a login that was accepted until now. If that brings no other one,
// Login is anonymous, so it always reports true.
func (p *PublicLogins) Refused(l auth.Login) bool {
	token := base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
	if p.refusals.Renew(token) {
		ctx, cancel := context.WithTimeout(p.ctx, signedWait)
		defer cancel()
		next, err := p.tokens.renew(ctx, token)
		p.refusals.Renewed(token, next)
		if err == nil && next != token {
			return true
		}
	}
	p.mu.Lock()
	p.bad = l
	p.mu.Unlock()
	p.log.Info("ECR Public is asked anonymously, as it refuses what its API gave for the AWS credentials")
	return true
}
