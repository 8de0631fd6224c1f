package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ReplicaHosts returns the hosts of the registries that stand in for host, which
// the upstream serves: a region's is the registry of the same account there,
// under the same form of name. One that would be host itself is left out, as a
// pattern may match the replica too.
func (u *Upstream) ReplicaHosts(host string) []string {
	if u.ECR == nil {
		return nil
	}
	var hosts []string
	for _, replica := range u.ECR.Replicas {
		if !isRegion(replica) {
			hosts = append(hosts, replica)
		} else if there, ok := inRegion(host, replica); ok && there != host {
			hosts = append(hosts, there)
		}
	}
	return hosts
}

// isRegion tells a region from a host.
func isRegion(s string) bool { return !strings.ContainsAny(s, ".:") }

// regionOrHost accepts a region, or a host that cannot be taken for one.
func regionOrHost(to *string) func(*yaml.Node) error {
	const want = "a region such as eu-west-1, or the host of a registry"
	return lower(to, check(to, want, func(s string) bool {
		return isRegion(s) && isLabel(s, false) && strings.Contains(s, "-") || strings.Contains(s, ".") && isHost(s)
	}))
}

// pullThroughPrefix accepts what ECR does as the prefix of a pull-through cache
// rule (ECR API reference, CreatePullThroughCacheRule).
func pullThroughPrefix(to *string) func(*yaml.Node) error {
	const want = "the prefix of a pull-through cache rule such as docker-hub, or ROOT"
	set := check(to, want, func(s string) bool {
		s = strings.TrimSuffix(s, "/")
		return s == "ROOT" || s != "" && !strings.HasPrefix(s, "/") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-/") == ""
	})
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		*to = strings.TrimSuffix(*to, "/")
		return nil
	}
}

// texts makes a list of which set takes each item.
func texts(to *[]string, set func(to *string) func(*yaml.Node) error) func(n int) []field {
	return func(n int) []field {
		*to = make([]string, n)
		items := make([]field, n)
		for i := range items {
			items[i].set = set(&(*to)[i])
		}
		return items
	}
}

// checkReplicas checks the replicas of the upstream at key.
func (l *loader) checkReplicas(key string, u *Upstream) {
	_, named := inRegion(u.Host, "")
	seen := make(map[string]bool)
	for i, replica := range u.ECR.Replicas {
		item := fmt.Sprintf("%s[%d]", key, i)
		if replica == "" || l.failed[item] {
			continue
		}
		host := replica
		if isRegion(replica) {
			host, _ = inRegion(u.Host, replica)
		}
		switch {
		case isRegion(replica) && !named:
			l.reject(item, fmt.Sprintf("expected a host, since %s is not an ECR host whose name tells where its replica in a region is", u.Host))
		case !isRegion(replica) && isPattern(u.Host):
			l.reject(item, "expected a region, since the pattern stands for several registries")
		case host == u.Host:
			l.reject(item, "expected another registry than the one that it is a replica of")
		case !isRegion(replica) && !l.isECR(replica):
			l.reject(item, fmt.Sprintf("%s is neither an ECR host by its name nor an upstream that has ecr", replica))
		case seen[host]:
			l.reject(item, "given twice")
		}
		seen[host] = true
	}
}

// isECR reports whether a host is a private ECR registry, by its name or by
// another entry.
func (l *loader) isECR(host string) bool {
	_, named := inRegion(host, "")
	return named || slices.ContainsFunc(l.config.Upstreams, func(u Upstream) bool { return u.Host == host && u.ECR != nil })
}
