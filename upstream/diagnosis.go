package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/probe"
	"github.com/larder-registry/larder/upstream/reply"
)

// Diagnosis has the steps of "larder doctor" for one registry. They take apart what
// the methods of Registry do, with the same connections and credentials. Nothing
// that they return is a secret.
type Diagnosis struct {
	site *site
}

// BaseURL returns the URL of the registry, below which its /v2 is.
func (d Diagnosis) BaseURL() string { return d.site.endpoint.String() }

// Connect connects to the registry and asks for its /v2/, without credentials.
func (d Diagnosis) Connect(ctx context.Context) probe.Connection {
	return d.connect(ctx, d.site.endpoint.JoinPath("v2", "/"))
}

// ConnectTo connects to a host that the registry redirects to, as Locate returns
// it.
func (d Diagnosis) ConnectTo(ctx context.Context, origin string) probe.Connection {
	u, err := url.Parse(origin)
	if err != nil {
		return probe.Connection{Stage: probe.StageDNS, Err: err}
	}
	return d.connect(ctx, u.JoinPath("/"))
}

func (d Diagnosis) connect(ctx context.Context, to *url.URL) probe.Connection {
	c := probe.Connect(ctx, d.site.transport.RoundTrip, to, probe.ProxyOf(d.site.transport.Proxy, to))
	c.Mute = d.site.transport.MuteNameServers()
	return c
}

// Proxy returns the host:port of the environment's proxy for requests to the
// registry, or "".
func (d Diagnosis) Proxy() string {
	return probe.ProxyOf(d.site.transport.Proxy, d.site.endpoint)
}

// Account returns the configured login for the registry. It is zero if ECR's API
// gives the login.
func (d Diagnosis) Account(ctx context.Context) (auth.Account, error) {
	if d.site.configured.challenged == nil {
		return auth.Account{}, nil
	}
	return d.site.configured.challenged.Account(ctx)
}

// Grant is how requests to a registry authenticate.
type Grant struct {
	// Kind is "ECR token", "bearer token", "basic" or "none".
	Kind string
	// Until is when a token expires; zero if there is none or that is unknown.
	Until time.Time
}

// Grant gets a token if the registry asks for one, and asks for /v2/ with it. The
// token is for pulls from the repository, or only to log in if that is "".
func (d Diagnosis) Grant(ctx context.Context, repository string) (Grant, error) {
	resp, err := d.site.ask(ctx, request{scope: repository, path: "/"})
	if err != nil {
		return Grant{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return Grant{}, reply.Read(resp)
	}
	resp.Body.Close()
	if d.site.ecr != nil {
		return Grant{"ECR token", d.site.ecr.Token().Expires}, nil
	}
	switch d.site.configured.challenged.Scheme() {
	case "bearer":
		return Grant{"bearer token", d.site.configured.challenged.TokenExpires(repository)}, nil
	case "basic":
		return Grant{Kind: "basic"}, nil
	}
	return Grant{Kind: "none"}, nil
}

// Locate asks the registry for a blob. It returns the scheme and host that the
// registry redirects to, or its own if it would send the blob itself.
func (d Diagnosis) Locate(ctx context.Context, repository string, dgst digest.Digest) (string, error) {
	resp, err := d.site.ask(ctx, blobRequest(repository, dgst, Range{Len: 1}))
	if err != nil {
		return "", err
	}
	if reply.IsRedirect(resp) {
		to, err := d.site.location(resp)
		if err != nil {
			return "", err
		}
		return guard.Origin(to), nil
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return "", reply.Read(resp)
	}
	resp.Body.Close()
	return guard.Origin(d.site.endpoint), nil
}

// Describe returns the kind of registry, by its name, in words.
func (d Diagnosis) Describe() string {
	host, isECR := name.ParseECR(d.site.host)
	hasTokens := d.site.ecr != nil
	text := "a registry that is not ECR's"
	switch {
	case isECR && host.Public:
		text = "ECR Public"
	case isECR:
		text = fmt.Sprintf("private ECR of account %s in %s (%s)", host.Account, host.Region, host.Partition)
	case hasTokens:
		text = "private ECR under another name"
	}
	if host.FIPS {
		text += ", FIPS"
	}
	if host.DualStack {
		text += ", dual-stack"
	}
	if isECR && !host.Public && !hasTokens {
		text += ", with the configured login in place of AWS's own"
	}
	return text
}
