package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/name"
)

// upstreams looks at the image's upstream, or at all that are one host.
func (e *examination) upstreams(cfg *config.Config, image name.Image) {
	client := upstream.NewClient(upstream.Options{Lookup: daemon.Lookup(cfg), Log: slog.New(slog.DiscardHandler)})
	defer client.Close()
	if image.Host != "" {
		e.about(image.Host)
		if registry := e.host(cfg, client, image); registry != nil {
			e.registry(registry, image.Repository)
			e.image(registry, image)
		}
		return
	}
	var patterns []string
	for _, u := range cfg.Upstreams {
		if u.Host.HasStar() {
			patterns = append(patterns, string(u.Host))
		}
	}
	if len(patterns) > 0 {
		e.add("patterns", notApplicable("to look at one of their hosts, name an image there: "+strings.Join(patterns, " ")), 0)
	}
	for _, u := range cfg.Upstreams {
		if u.Host.HasStar() {
			continue
		}
		e.about(string(u.Host))
		if registry := e.host(cfg, client, name.Image{Host: string(u.Host)}); registry != nil {
			e.registry(registry, "")
		}
	}
}

// host finds the upstream for an image's host, and says what it is taken for.
func (e *examination) host(cfg *config.Config, client *upstream.Client, image name.Image) *upstream.Registry {
	var registry *upstream.Registry
	e.step("host", nil, func(context.Context) finding {
		entry, ok := cfg.Match(image.Host)
		if !ok {
			return wrong(fmt.Errorf("no configured upstream serves %s", image.Host),
				"Add it to upstreams in the configuration: what is not there is never asked.")
		}
		if image.Repository != "" && !entry.Allows(image.Repository) {
			return wrong(fmt.Errorf("allow of the upstream %s leaves out %s", entry.Host, image.Repository),
				"Add a pattern for the repository to allow, or leave allow away.")
		}
		found, err := client.Registry(image.Host)
		if err != nil {
			return wrong(err, "Mend the upstream's endpoint in the configuration.")
		}
		registry = found
		return fine("%s, at %s", registry.Describe(), registry.BaseURL())
	})
	return registry
}

// registry looks at everything that a pull from a repository needs before it
// begins. Without a repository it is about the registry as a whole.
func (e *examination) registry(r *upstream.Registry, repository string) {
	first := e.place("registry", stepFailed, func(ctx context.Context) upstream.Connection { return r.Connect(ctx) })
	services, isECR := e.awsServices(r)
	for _, s := range services {
		severity := stepFailed
		if s.Name == serviceSTS {
			severity = stepWarning // pulls need it only where a role is assumed
		}
		e.place(s.Name, severity, func(ctx context.Context) upstream.Connection { return r.ConnectService(ctx, s) })
	}
	e.clock(first, isECR)
	if isECR {
		e.identity(r)
	} else {
		e.account(r)
	}
	e.token(r, repository, isECR)
}

// serviceSTS is what upstream.Service.Name calls STS.
const serviceSTS = "sts"

// place connects to a place, which makes three steps of it. They fail with a
// severity.
func (e *examination) place(name string, severity stepStatus, connect func(context.Context) upstream.Connection) upstream.Connection {
	ctx, cancel := context.WithTimeoutCause(e.ctx, e.timeout, errStepTimeout)
	defer cancel()
	began := time.Now()
	c := connect(ctx)
	took := time.Since(began)
	if c.Stage == upstream.StageAnswer {
		c.Stage, c.Err = upstream.StageTLS, fmt.Errorf("connected, but there is no answer: %w", c.Err)
	}
	var failed string
	for _, s := range []struct {
		stage upstream.Stage
		seen  finding
	}{
		{upstream.StageDNS, dnsFinding(c)},
		{upstream.StageTCP, fine("connected to %s", c.Remote)},
		{upstream.StageTLS, tlsFinding(c)},
	} {
		step := name + "-" + string(s.stage)
		switch {
		case failed != "":
			e.add(step, notApplicable("not tried, since "+failed+" failed"), 0)
		case c.Stage == s.stage:
			failed = step
			e.add(step, finding{severity, c.Err.Error(), adviceOnConnection(c)}, took)
			if severity == stepFailed {
				e.missing[name] = step
			}
		default:
			e.add(step, s.seen, c.Took[s.stage])
		}
	}
	return c
}

// noPlace stands in for place where there is none to connect to.
func (e *examination) noPlace(name, why string) {
	for _, stage := range []upstream.Stage{upstream.StageDNS, upstream.StageTCP, upstream.StageTLS} {
		e.add(name+"-"+string(stage), notApplicable(why), 0)
	}
}

func dnsFinding(c upstream.Connection) finding {
	switch {
	case c.Proxy != "" && len(c.Addresses) > 0:
		return fine("by the proxy %s, which is %s", c.Proxy, strings.Join(c.Addresses, ", "))
	case c.Proxy != "":
		return notApplicable("by the proxy " + c.Proxy)
	case len(c.Addresses) == 0:
		return notApplicable("an address needs no DNS")
	}
	return fine("%s", strings.Join(c.Addresses, ", "))
}

func tlsFinding(c upstream.Connection) finding {
	if c.TLS == "" {
		return notApplicable("plain HTTP, by the configuration")
	}
	return fine("%s, with a certificate that is trusted here", c.TLS)
}

// awsServices finds out which of AWS's APIs the registry needs, if any.
func (e *examination) awsServices(r *upstream.Registry) (services []upstream.Service, isECR bool) {
	if !r.IsECR() {
		return nil, false
	}
	e.step("aws-config", nil, func(ctx context.Context) finding {
		var err error
		if services, err = r.Services(ctx); err != nil {
			return wrong(err, "Mend the AWS configuration: ~/.aws/config, AWS_PROFILE and its like, or ecr in the configuration.")
		}
		var where []string
		for _, s := range services {
			where = append(where, s.Name+" at "+s.URL)
		}
		return fine("%s", strings.Join(where, ", "))
	})
	return services, true
}

const (
	// badSkew is what AWS refuses in signatures (IAM user guide, "Troubleshoot
	// Signature Version 4 requests").
	badSkew = 5 * time.Minute
	// oddSkew is what no clock that is kept has.
	oddSkew = 10 * time.Second
)

// clock compares this machine's clock with the one of a place that answered.
func (e *examination) clock(c upstream.Connection, isECR bool) {
	e.step("clock", []string{"registry"}, func(context.Context) finding {
		if c.Date.IsZero() {
			return notApplicable("the registry does not tell its time")
		}
		skew := c.Here.Sub(c.Date)
		off := skew.Abs().Round(time.Second)
		detail := fmt.Sprintf("%v behind the registry's", off)
		if skew > 0 {
			detail = fmt.Sprintf("%v ahead of the registry's", off)
		}
		const advice = "Set the clock of this machine, and have chrony or systemd-timesyncd keep it."
		switch {
		case off > badSkew && isECR:
			return wrong(errors.New(detail+": AWS refuses signatures that are more than 5 minutes off"), advice)
		case off > oddSkew:
			return warn(detail, advice)
		}
		return fine("within %v of the registry's", oddSkew)
	})
}

// account says as whom a registry that is not ECR's is asked.
func (e *examination) account(r *upstream.Registry) {
	e.step("credentials", nil, func(ctx context.Context) finding {
		account, err := r.Account(ctx)
		switch {
		case err != nil:
			return wrong(err, "Mend auth of this upstream in the configuration: the file must be readable, and a helper that it names must be on the PATH of larder.")
		case account == (auth.Account{}):
			return notApplicable("none are configured: it is asked as anybody")
		case account.Name == "":
			return fine("a token, from %s", account.Source)
		}
		return fine("%s, from %s", account.Name, account.Source)
	})
}

// token asks for /v2/ with all that it takes.
func (e *examination) token(r *upstream.Registry, repository string, isECR bool) {
	e.step("token", []string{"registry", "aws-config", "ecr-api", "credentials"}, func(ctx context.Context) finding {
		if repository == "" && !isECR {
			if account, err := r.Account(ctx); err == nil && account == (auth.Account{}) {
				return notApplicable("anybody gets one for a repository only: name an image")
			}
		}
		grant, err := r.Grant(ctx, repository)
		switch {
		case err != nil && isECR:
			return wrong(err, adviceOnECRToken(err))
		case errors.Is(err, fs.ErrPermission):
			return wrong(err, "The registry refuses these credentials. Check user name, password and whether the token was revoked; without credentials, whether the repository is public.")
		case err != nil:
			return wrong(err, "See whether the registry works for others: this is its own answer, or that of its token service.")
		case grant.Until.IsZero():
			return fine("the registry lets us in (%s)", grant.Kind)
		}
		return fine("%s, good for %s", grant.Kind, remaining(grant.Until))
	})
}

// remaining is the time until then, to the minute: 11h59m.
func remaining(until time.Time) string {
	return strings.TrimSuffix(time.Until(until).Round(time.Minute).String(), "0s")
}
