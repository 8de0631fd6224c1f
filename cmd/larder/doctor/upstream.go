package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/probe"
)

// checkUpstreams examines the image's upstream, or without an image all upstreams
// that are one host.
func checkUpstreams(e *examination, cfg *config.Config, image name.Image) {
	client := upstream.NewClient(upstream.Options{Lookup: daemon.Lookup(cfg), Log: slog.New(slog.DiscardHandler)})
	defer client.Close()
	if image.Host != "" {
		if registry := findRegistry(e, cfg, client, image); registry != nil {
			checkRegistry(e, cfg, registry, image)
			checkImage(e, registry, image)
		}
		return
	}
	var hosts, patterns []string
	for _, u := range cfg.Upstreams {
		if u.Host.HasStar() {
			patterns = append(patterns, string(u.Host))
		} else {
			hosts = append(hosts, string(u.Host))
		}
	}
	if len(patterns) > 0 {
		e.add("patterns", skipped("to examine one of their hosts, name an image there: "+strings.Join(patterns, " ")), 0)
	}
	for _, host := range hosts {
		image := name.Image{Host: host}
		if registry := findRegistry(e, cfg, client, image); registry != nil {
			checkRegistry(e, cfg, registry, image)
		}
	}
}

// findRegistry begins the steps about an image's upstream. It returns nil if the
// configuration does not allow the image, or says that the upstream is offline.
func findRegistry(e *examination, cfg *config.Config, client *upstream.Client, image name.Image) (registry *upstream.Registry) {
	e.about(image.Host)
	e.step("host", nil, func(context.Context) finding {
		entry, ok := cfg.Match(image.Host)
		if !ok {
			return failed(fmt.Errorf("no configured upstream serves %s", image.Host),
				"Add it to upstreams in the configuration: Larder asks no other hosts.")
		}
		if image.Repository != "" && !entry.Allows(image.Repository) {
			return failed(fmt.Errorf("allow of the upstream %s leaves out %s", entry.Host, image.Repository),
				"Add a pattern for the repository to allow, or remove allow.")
		}
		if entry.Offline {
			return skipped("offline, by the configuration: nothing is asked and no name is looked up")
		}
		found, err := client.Registry(image.Host)
		if err != nil {
			return failed(err, "Fix the upstream's endpoint in the configuration.")
		}
		registry = found
		return passed("%s, at %s", registry.Diagnosis().Describe(), registry.Diagnosis().BaseURL())
	})
	return registry
}

// serviceSTS is what ecr.Service.Name calls STS.
const serviceSTS = "sts"

// checkRegistry examines everything that a pull of an image needs before it begins, and
// settings of ECR's. Without a repository it examines the registry as a whole.
func checkRegistry(e *examination, cfg *config.Config, r *upstream.Registry, image name.Image) {
	first := connect(e, "registry", Failed, r.Diagnosis().Connect)
	services, isECR := awsServices(e, r)
	for _, s := range services {
		severity := Failed
		if s.Name == serviceSTS {
			severity = Warning // pulls need it only where a role is assumed
		}
		connect(e, s.Name, severity, func(ctx context.Context) probe.Connection { return r.ECR().Diagnosis().Connect(ctx, s) })
	}
	checkClock(e, first, isECR)
	if !isECR {
		checkAccount(e, r)
		checkToken(e, r, image.Repository, isECR)
		return
	}
	caller := checkIdentity(e, r)
	checkToken(e, r, image.Repository, isECR)
	entry, _ := cfg.Match(image.Host)
	s := settings{r, entry, image, caller}
	s.checkKeepAlive(e)
	s.checkReplicas(e)
}

// awsServices returns the APIs of AWS that the registry needs, if it is ECR.
func awsServices(e *examination, r *upstream.Registry) (services []ecr.Service, isECR bool) {
	if r.ECR() == nil {
		return nil, false
	}
	e.step("aws-config", nil, func(ctx context.Context) finding {
		var err error
		if services, err = r.ECR().Diagnosis().Services(ctx); err != nil {
			return failed(err, "Fix the AWS configuration: ~/.aws/config, variables such as AWS_PROFILE, or ecr in the configuration.")
		}
		var where []string
		for _, s := range services {
			where = append(where, s.Name+" at "+s.URL)
		}
		return passed("%s", strings.Join(where, ", "))
	})
	return services, true
}

const (
	// badSkew is what AWS refuses in signatures (IAM user guide, "Troubleshoot
	// Signature Version 4 requests").
	badSkew = 5 * time.Minute
	// oddSkew is more than a synchronized clock is ever off.
	oddSkew = 10 * time.Second
)

// checkClock compares this machine's clock with the registry's, which answered on a
// connection.
func checkClock(e *examination, c probe.Connection, isECR bool) {
	e.step("clock", []string{"registry"}, func(context.Context) finding {
		if c.Date.IsZero() {
			return skipped("the registry does not send its time")
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
			return failed(errors.New(detail+": AWS refuses signatures that are more than 5 minutes off"), advice)
		case off > oddSkew:
			return warning(detail, advice)
		}
		return passed("within %v of the registry's", oddSkew)
	})
}
