package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/larder-registry/larder/upstream/name"
)

// checker checks what holds between keys that are valid by themselves.
type checker struct {
	*report
	config *Config
}

func (c checker) check() {
	c.checkListeners()
	if len(c.config.Upstreams) == 0 {
		c.reject("upstreams", "expected at least one upstream")
		return
	}
	hosts := make(map[name.HostPattern]string)
	for i := range c.config.Upstreams {
		c.checkUpstream(fmt.Sprintf("upstreams[%d]", i), &c.config.Upstreams[i], hosts)
	}
	c.checkDefaultUpstream()
	c.checkLifecycle()
}

func (c checker) checkListeners() {
	listen, admin := c.config.Listen, c.config.Admin
	if c.failed["listen"] || c.failed["admin"] || admin == "" || !collide(listen, admin) {
		return
	}
	if _, given := c.places["admin"]; given {
		c.reject("admin", fmt.Sprintf("expected another address than listen's, which is %s", listen))
	} else {
		c.reject("listen", fmt.Sprintf("expected another address than admin's, which is %s", admin))
	}
}

// collide reports whether it is impossible to listen on two valid addresses at once.
func collide(a, b string) bool {
	aHost, aPort, _ := net.SplitHostPort(a)
	bHost, bPort, _ := net.SplitHostPort(b)
	if aPort != bPort || aPort == "0" {
		return false
	}
	return isEverywhere(aHost) || isEverywhere(bHost) || listenIP(aHost) == listenIP(bHost)
}

// isEverywhere reports whether a listener on host listens on all addresses.
func isEverywhere(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

// listenIP returns host in lower case; for localhost it returns the address that
// [net.Listen] uses.
func listenIP(host string) string {
	if host = strings.ToLower(host); host == "localhost" {
		return "127.0.0.1"
	}
	return host
}

// checkUpstream checks the upstream at key. hosts has the keys of the hosts of the
// upstreams before it.
func (c checker) checkUpstream(key string, u *Upstream, hosts map[name.HostPattern]string) {
	if c.failed[key] {
		return
	}
	if u.Host == "" {
		c.reject(key+".host", "missing; expected the host by which clients call the registry")
	} else if first, ok := hosts[u.Host]; ok {
		c.reject(key+".host", fmt.Sprintf("%s is given already on line %d", u.Host, c.places[first].line))
	} else {
		hosts[u.Host] = key + ".host"
	}
	if u.Host.HasStar() && u.Endpoint != "" {
		c.reject(key+".endpoint", "not possible with a pattern: each of its hosts has its own endpoint")
	}
	if u.ECR != nil && u.Host != "" {
		c.checkECR(key+".ecr", u)
	}
	c.checkAuth(key, u)
}

func (c checker) checkAuth(key string, u *Upstream) {
	switch {
	case u.Auth.DockerConfig != "" && (u.Auth.Username != "" || u.Auth.PasswordFile != ""):
		c.reject(key+".auth.docker_config", "not possible together with username and password_file")
	case u.Auth.Username == "" && u.Auth.PasswordFile != "":
		c.reject(key+".auth.username", "missing; expected together with password_file")
	case u.Auth.Username != "" && u.Auth.PasswordFile == "":
		c.reject(key+".auth.password_file", "missing; expected together with username")
	}
	switch {
	case u.Auth.hasLogin() && u.ECR != nil:
		c.reject(key+".auth", "not possible together with ecr, which uses AWS credentials")
	case !u.Auth.hasLogin() && len(u.Auth.Realms) > 0:
		c.reject(key+".auth.realms", "expected together with username or docker_config, whose credentials are sent there")
	}
	_, isECR := u.Host.ECR()
	if hasCredentials := isECR || u.ECR != nil || u.Auth.hasLogin(); hasCredentials && isExposing(u.Endpoint) {
		c.reject(key+".endpoint", "expected https, since credentials are sent there and it is not a loopback address")
	}
}

// isExposing reports whether others could read what is sent to a valid URL.
func isExposing(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && u.Scheme == "http" && !name.IsLoopback(u.Hostname())
}

func (c checker) checkECR(key string, u *Upstream) {
	host, isECR := u.Host.ECR()
	switch region := u.ECR.Region; {
	case !isECR && region == "":
		c.reject(key+".region", "missing; expected a region, since the host's name does not contain one")
	case isECR && region != "" && strings.Contains(host.Region, "*"):
		c.reject(key+".region", "not possible with this pattern: each of its hosts names its own region")
	case isECR && region != "" && region != host.Region:
		c.reject(key+".region", fmt.Sprintf("expected %s, which is the region in the host's name, or none", host.Region))
	}
	if u.ECR.RoleARN == "" && u.ECR.ExternalID != "" {
		c.reject(key+".external_id", "expected together with role_arn, whose trust policy requires it")
	}
	if u.ECR.RoleARN == "" && u.ECR.SessionName != "" {
		c.reject(key+".session_name", "expected together with role_arn, whose session it names")
	}
	c.checkReplicas(key+".replicas", u)
	if isExposing(u.ECR.APIEndpoint) {
		c.reject(key+".api_endpoint", "expected https, since credentials come from there and it is not a loopback address")
	}
}

// checkReplicas checks the replicas of the upstream at key.
func (c checker) checkReplicas(key string, u *Upstream) {
	seen := make(map[string]bool)
	for i, replica := range u.ECR.Replicas {
		item := fmt.Sprintf("%s[%d]", key, i)
		if replica == "" || c.failed[item] {
			continue
		}
		host, inName := replica, true
		isRegion := name.IsRegion(replica)
		if isRegion {
			var there name.HostPattern
			there, inName = u.Host.InRegion(replica)
			host = string(there)
		}
		switch {
		case !inName:
			c.reject(item, fmt.Sprintf("expected a host, since %s is not the name of a private ECR registry", u.Host))
		case !isRegion && u.Host.HasStar():
			c.reject(item, "expected a region, since the pattern matches several registries")
		case host == string(u.Host):
			c.reject(item, "expected a registry other than the upstream itself")
		case !isRegion && !c.isPrivateECR(replica):
			c.reject(item, fmt.Sprintf("%s is neither an ECR host by its name nor an upstream that has ecr", replica))
		case seen[host]:
			c.reject(item, "given twice")
		}
		seen[host] = true
	}
}

// isPrivateECR reports whether a host is a private ECR registry, by its name or by
// another upstream.
func (c checker) isPrivateECR(host string) bool {
	if ecr, ok := name.ParseECR(host); ok && !ecr.Public {
		return true
	}
	return slices.ContainsFunc(c.config.Upstreams, func(u Upstream) bool { return string(u.Host) == host && u.ECR != nil })
}

func (c checker) checkDefaultUpstream() {
	if host := c.config.DefaultUpstream; host != "" && !c.mayServe(host) {
		c.reject("default_upstream", fmt.Sprintf("expected a host that one of the upstreams serves, got %q", host))
	}
}

func (c checker) checkLifecycle() {
	for i, r := range c.config.Lifecycle {
		key := fmt.Sprintf("lifecycle[%d]", i)
		if c.failed[key] {
			continue
		}
		switch host := r.Match.Host; {
		case host == "":
			c.reject(key+".match", "missing; expected the repositories that the rules are for, such as docker.io/library/*")
		case !host.HasStar() && !c.mayServe(string(host)):
			c.reject(key+".match", fmt.Sprintf("expected a host that one of the upstreams serves, got %q", host))
		}
		if _, given := c.places[key+".rules"]; !given {
			c.reject(key+".rules", "missing; expected "+rulesWanted)
		}
	}
}

// mayServe reports whether an upstream serves a host. An upstream whose own host is
// wrong may serve any.
func (c checker) mayServe(host string) bool {
	if _, ok := c.config.Match(host); ok || c.failed["upstreams"] {
		return true
	}
	for i := range c.config.Upstreams {
		if key := fmt.Sprintf("upstreams[%d]", i); c.failed[key] || c.failed[key+".host"] {
			return true
		}
	}
	return false
}
