package upstream

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/reply"
)

// ECR Public is asked as anyone asks it, by a bearer token from the service that
// its challenge names, or with more rights, where AWS credentials are to be had:
// its API gives whoever may call ecr-public:GetAuthorizationToken and
// sts:GetServiceBearerToken a user name and password for that same service.

const (
	// signedWait bounds how long a client waits for the first attempt to get
	// credentials, of which there may be none: off AWS nobody answers at the address
	// of the instance metadata.
	signedWait = 3 * time.Second
)

// publicToken calls ECR Public's GetAuthorizationToken.
func (a *ecrAPI) publicToken(ctx context.Context) (ecrToken, error) {
	const what = "get a token for ECR Public"
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	cfg, err := a.session.config(ctx)
	if err != nil {
		return ecrToken{}, err
	}
	api := ecrpublic.NewFromConfig(*cfg, func(o *ecrpublic.Options) {
		if a.endpoint != "" {
			o.BaseEndpoint = aws.String(a.endpoint)
		}
		if o.BaseEndpoint != nil {
			o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = noKind()
		}
	})
	asked := a.now()
	ctx, end := a.caller.api(ctx, "ECR Public GetAuthorizationToken")
	out, err := api.GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	end(err)
	if err != nil {
		a.session.forget(err)
		return ecrToken{}, newCredentialsError(what, err)
	}
	if out.AuthorizationData == nil || aws.ToString(out.AuthorizationData.AuthorizationToken) == "" {
		return ecrToken{}, auth.NewError(what, auth.ErrNoToken)
	}
	return ecrToken{
		value:    *out.AuthorizationData.AuthorizationToken,
		obtained: asked,
		life:     tokenLife(out.AuthorizationData.ExpiresAt, out.ResultMetadata, asked),
	}, nil
}

// publicLogins gives ECR Public's token service the user name and password that
// its API hands out, and none while there are none. It is safe for concurrent use.
type publicLogins struct {
	source   *tokenSource
	ctx      context.Context // ends with the client
	log      *slog.Logger
	refusals *auth.Refusals

	mu  sync.Mutex // guards bad
	bad auth.Login // refused, with nothing new in its place
}

func (p *publicLogins) Login(ctx context.Context) (auth.Login, error) {
	ctx, cancel := context.WithTimeout(ctx, signedWait)
	defer cancel()
	token, err := p.source.get(ctx)
	if err != nil {
		return auth.Login{}, nil // anybody may ask, and the source has logged why it must be anybody
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

func (*publicLogins) From() string { return "ECR Public's API, by AWS credentials" }

// refused has a login renewed that was good until now. There is always another
// one: none.
func (p *publicLogins) Refused(l auth.Login) bool {
	token := base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
	if p.refusals.Renew(token) {
		ctx, cancel := context.WithTimeout(p.ctx, signedWait)
		defer cancel()
		next, err := p.source.renew(ctx, token)
		p.refusals.Renewed(token, next)
		if err == nil && next != token {
			return true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad = l
	p.log.Info("ECR Public is asked anonymously, as it refuses what its API gave for the AWS credentials")
	return true
}
