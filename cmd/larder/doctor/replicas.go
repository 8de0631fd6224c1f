package doctor

import (
	"context"
	"slices"
	"strings"

	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/name"
)

// checkReplicas compares the registry's replication rules with ecr.replicas.
func (s settings) checkReplicas(e *examination) {
	e.step("replicas", fromAPI, func(ctx context.Context) finding {
		host, named := name.ParseECR(s.image.Host)
		switch {
		case !named:
			return skipped("the registry has another name than ECR's, from which those of replicas do not follow")
		case s.foreign():
			return skipped(anotherAccount)
		}
		r, err := s.registry.ECR().Diagnosis().Replication(ctx)
		if err != nil {
			return unknown(err)
		}
		if host.Account != r.Account {
			return skipped(anotherAccount)
		}
		return s.replicaFinding(r)
	})
}

// replicaFinding says which replicas there are, and offers those that are not configured.
func (s settings) replicaFinding(r ecr.Replication) finding {
	configured := s.entry.ReplicaHosts(s.image.Host)
	var replicas, hosts, offered []string
	for _, rule := range r.Rules {
		key, host, ok := s.replica(r.Account, rule)
		if !ok || !s.applies(rule) {
			continue
		}
		text := host
		if len(rule.Prefixes) > 0 {
			text += " (" + strings.Join(rule.Prefixes, "*, ") + "*)"
		}
		replicas = append(replicas, text)
		if !slices.Contains(hosts, host) && !slices.Contains(configured, host) {
			offered = append(offered, key)
		}
		hosts = append(hosts, host)
	}
	detail := "ECR replicates this nowhere"
	if len(replicas) > 0 {
		detail = "ECR replicates this to " + strings.Join(replicas, ", ")
	}
	strangers := slices.DeleteFunc(configured, func(host string) bool { return slices.Contains(hosts, host) })
	switch {
	case len(strangers) > 0:
		return warning(detail+", and not to "+strings.Join(strangers, ", ")+" of ecr.replicas",
			"Remove it from ecr.replicas, or add a replication rule for it: a replica without the image is asked in vain.")
	case len(offered) > 0:
		return finding{OK, detail, "To pull from there when the registry fails, add to this upstream: ecr: {replicas: [" + strings.Join(offered, ", ") + "]}."}
	case len(replicas) == 0:
		return skipped(detail)
	}
	return passed("%s, as configured", detail)
}

// applies reports whether a rule replicates the image's repository; without an image it
// may apply to some.
func (s settings) applies(rule ecr.ReplicationRule) bool {
	return s.image.Repository == "" || len(rule.Prefixes) == 0 ||
		slices.ContainsFunc(rule.Prefixes, func(prefix string) bool { return strings.HasPrefix(s.image.Repository, prefix) })
}

// replica returns the host of the registry that a rule names, and how ecr.replicas names
// it. It returns false if the registry's own host does not tell.
func (s settings) replica(own string, rule ecr.ReplicationRule) (key, host string, ok bool) {
	host, ok = name.InRegion(s.image.Host, rule.Region)
	if rule.Account == own {
		return rule.Region, host, ok
	}
	_, rest, _ := strings.Cut(host, ".")
	host = rule.Account + "." + rest
	return host, host, ok
}
