package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	c.checkTLS()
	c.checkClientAuth()
	c.checkLink()
	c.checkImport()
	c.checkAccess()
	c.checkAudit()
	c.checkPeers()
	c.checkShared()
	if len(c.config.Upstreams) == 0 {
		c.reject("upstreams", "expected at least one upstream")
		return
	}
	hosts := make(map[name.HostPattern]string)
	for i := range c.config.Upstreams {
		c.checkUpstream(fmt.Sprintf("upstreams[%d]", i), &c.config.Upstreams[i], hosts)
	}
	c.checkDefaultUpstream()
	c.checkKeep()
	c.checkCooldown()
	c.checkPolicy()
	c.checkLifecycle()
}

func (c checker) checkCooldown() {
	for i, entry := range c.config.Tags.Cooldown {
		key := fmt.Sprintf("tags.cooldown[%d]", i)
		if c.failed[key] {
			continue
		}
		if entry.Match == "" {
			c.reject(key+".match", "missing; expected the images that are delayed, such as docker.io/*")
		}
		if entry.For == 0 {
			c.reject(key+".for", "missing; expected for how long, such as 72h")
		}
	}
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

func (c checker) checkTLS() {
	files := c.config.TLS
	if key, why := files.missing(); key != "" {
		c.reject("tls."+key, "missing; "+why)
	}
	const effect = "larder serve does not start"
	c.checkFile("tls.cert", files.Cert, effect)
	c.checkFile("tls.key", files.Key, effect)
	c.checkFile("tls.client_ca", files.ClientCA, effect)
}

func (c checker) checkClientAuth() {
	if !c.config.Auth.On() {
		return
	}
	c.checkFile("auth.htpasswd", c.config.Auth.Htpasswd, "larder serve does not start")
	switch {
	case c.config.HasAccessByClient():
		c.reject("auth.htpasswd", "not possible together with upstreams that have access: client, since a client sends one user name and password")
	case c.isReadByOthers():
		c.reject("auth.htpasswd", "expected together with tls, since others could read passwords on the way to "+c.config.Listen)
	}
}

// isReadByOthers reports whether what clients send is in plain text beyond this machine.
func (c checker) isReadByOthers() bool {
	host, _, err := net.SplitHostPort(c.config.Listen)
	return err == nil && c.config.TLS == (TLS{}) && !c.failed["listen"] && !c.failed["tls"] && (isEverywhere(host) || !name.IsLoopback(listenIP(host)))
}

func (c checker) checkLink() {
	rate, background := c.config.Link.Rate, c.config.Link.Background.Rate
	if rate > 0 && background > rate && !c.failed["link.rate"] {
		c.reject("link.background.rate", fmt.Sprintf("expected no more than link.rate, which is %v", Amount{Bytes: rate}))
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

// checkImport warns of keys that cannot be read where there is no link.
func (c checker) checkImport() {
	for i, key := range c.config.Import.Verify {
		item := fmt.Sprintf("import.verify[%d]", i)
		if !strings.HasPrefix(key, schemeKMS) {
			if _, err := os.Stat(key); key != "" && errors.Is(err, fs.ErrNotExist) {
				c.warn(item, key+" does not exist; until it does, nothing can be imported")
			}
			continue
		}
		isOffline := func(u Upstream) bool { return u.Offline }
		if slices.ContainsFunc(c.config.Upstreams, isOffline) {
			c.warn(item, "AWS is asked for it at each import, and an upstream is offline: export the public key, and name its file")
		}
	}
}

// checkAccess checks what the upstreams need whose clients' own rights decide.
func (c checker) checkAccess() {
	if !c.config.HasAccessByClient() {
		return
	}
	a := c.config.Access
	switch inside, err := filepath.Rel(c.config.Cache.Dir, a.KeyFile); {
	case c.failed["access.key_file"]:
	case a.KeyFile == "":
		c.reject("access.key_file", "missing; expected where the key of the hashes is kept, as there is no user configuration folder")
	case err == nil && filepath.IsLocal(inside):
		c.reject("access.key_file", "expected a file outside of cache.dir, which has the hashes")
	}
	for i, u := range c.config.Upstreams {
		key := fmt.Sprintf("upstreams[%d]", i)
		if !u.ByClient() || c.failed[key] {
			continue
		}
		if u.Offline {
			c.reject(key+".access", "client is not possible together with offline, since the upstream could not be asked about any client")
		}
		if isExposing(u.Endpoint) {
			c.reject(key+".endpoint", "expected https, since clients' credentials are sent there and it is not a loopback address")
		}
		if c.isReadByOthers() {
			c.reject(key+".access", "client needs tls, since others could read clients' credentials on the way to "+c.config.Listen)
		}
	}
}

func (c checker) checkAudit() {
	a := c.config.Audit
	if c.failed["audit.file"] || c.failed["audit"] {
		return
	}
	inside, err := filepath.Rel(c.config.Cache.Dir, a.File)
	switch {
	case a.Required && a.File == "":
		c.reject("audit.file", "missing; expected the file that audit.required asks for, or - for standard output")
	case a.File != "" && a.File != AuditStdout && err == nil && filepath.IsLocal(inside) && !c.failed["cache.dir"]:
		c.reject("audit.file", "expected a file outside of cache.dir, whose files are the cache's own")
	}
}

func (c checker) checkPolicy() {
	rules := policyRules{
		offline: make(map[name.HostPattern]bool),
		all:     c.config.Policy,
		serves:  c.serves,
		failed:  func(key string) bool { return c.failed[key] },
		lineOf:  func(key string) int { return c.places[key].line },
	}
	for _, u := range c.config.Upstreams {
		rules.offline[u.Host] = u.Offline
	}
	for _, p := range rules.problems() {
		if p.isWarning {
			c.warn(p.key, p.text)
		} else {
			c.reject(p.key, p.text)
		}
	}
}

// serves reports whether an upstream serves some of the repositories that a pattern matches. An
// upstream with a mistake may serve any.
func (c checker) serves(p name.Pattern) bool {
	if c.failed["upstreams"] {
		return true
	}
	for i, u := range c.config.Upstreams {
		if key := fmt.Sprintf("upstreams[%d]", i); c.failed[key] || c.failed[key+".host"] || c.failed[key+".allow"] {
			return true
		}
		if !u.Host.Overlaps(p.Host) {
			continue
		}
		overlaps := func(allowed name.RepositoryPattern) bool { return allowed.Overlaps(p.Repository) }
		if len(u.Allow) == 0 || slices.ContainsFunc(u.Allow, overlaps) {
			return true
		}
	}
	return false
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
	c.checkHost(key, u)
	c.checkAllow(key+".allow", u)
	if u.Host.HasStar() && u.Endpoint != "" {
		c.reject(key+".endpoint", "not possible with a pattern: each of its hosts has its own endpoint")
	}
	if u.ECR != nil && u.Host != "" {
		c.checkECR(key+".ecr", u)
	}
	c.checkAuth(key, u)
}

// hubSite is where people look at Docker Hub. There is no registry.
const hubSite = "hub.docker.com"

// checkHost finds hosts that nobody means: what is nearly a host of ECR, and a web site.
func (c checker) checkHost(key string, u *Upstream) {
	const ecrForm = "<account of 12 digits>.dkr.ecr.<region>.amazonaws.com"
	_, isECR := u.Host.ECR()
	_, given := c.places[key+".endpoint"]
	switch {
	case u.Host == hubSite:
		c.reject(key+".host", fmt.Sprintf("%s is a web site; Docker Hub's registry is %s", hubSite, name.DockerHub))
	case strings.Contains(string(u.Host), ".dkr.ecr") && !isECR && u.ECR == nil && !given:
		c.reject(key+".host", fmt.Sprintf("%s looks like a host of ECR, and is none; expected %s", u.Host, ecrForm))
	}
}

// checkAllow finds repositories that are written with the host of their registry.
func (c checker) checkAllow(key string, u *Upstream) {
	for i, pattern := range u.Allow {
		item := fmt.Sprintf("%s[%d]", key, i)
		host, repository, hasHost := strings.Cut(string(pattern), "/")
		switch parsed, ok := name.ParseRegistry(host); {
		case !hasHost || c.failed[item]:
		case ok && strings.ContainsAny(host, ".:") && u.Host.Match(parsed), host == string(u.Host):
			c.reject(item, fmt.Sprintf("expected %s, since repositories are meant without the host of their registry", repository))
		case strings.Contains(host, "."):
			c.warn(item, fmt.Sprintf("%s looks like the host of a registry, but stands for the first part of a repository's name", host))
		}
	}
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
	const effect = "pulls from the registry fail"
	c.checkFile(key+".auth.password_file", u.Auth.PasswordFile, effect)
	c.checkFile(key+".auth.docker_config", u.Auth.DockerConfig, effect)
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

// checkFile warns of a file that does not exist, and of what that does. It may come later, as a
// mounted secret does.
func (c checker) checkFile(key, path, effect string) {
	if path == "" {
		return
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		c.warn(key, "the file does not exist; until it does, "+effect)
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

func (c checker) checkKeep() {
	first := make(map[string]string) // the key of each image
	for i, k := range c.config.Keep {
		key := fmt.Sprintf("keep[%d]", i)
		if len(k.Images) == 0 && k.File == "" && !c.failed[key] && !c.failed[key+".images"] && !c.failed[key+".file"] {
			c.reject(key+".images", "missing; expected images here, or a file with a list of them")
		}
		for j, img := range k.Images {
			item := fmt.Sprintf("%s.images[%d]", key, j)
			if c.failed[item] || img.Host == "" {
				continue
			}
			switch earlier, again := first[img.String()]; {
			case again:
				c.reject(item, fmt.Sprintf("%s is given already on line %d", img, c.places[earlier].line))
			case !c.mayServe(img.Host):
				c.reject(item, fmt.Sprintf("expected an image of a host that one of the upstreams serves, got %q", img.Host))
			}
			first[img.String()] = item
		}
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

// checkPeers checks what belongs together, and completes the nodes to join.
func (c checker) checkPeers() {
	p := &c.config.Peers
	for _, key := range []string{"peers", "peers.listen", "peers.join", "peers.key_file"} {
		if c.failed[key] {
			return
		}
	}
	_, given := c.places["peers"]
	if !given && !p.On() {
		return
	}
	if !p.On() {
		c.reject("peers.key_file", "missing; expected the file with the cluster's key, which \"larder peers key\" makes")
	}
	if len(p.Join) == 0 {
		c.reject("peers.join", "missing; expected nodes of the cluster, such as dns:larder-peers.larder-system.svc")
	}
	_, text, _ := net.SplitHostPort(p.Listen) // address has checked it
	content, _ := strconv.ParseUint(text, 10, 16)
	if content == 65535 {
		c.reject("peers.listen", "expected a port below 65535, as gossip has the port after it")
		return
	}
	gossip := GossipPort(uint16(content))
	for i, at := range p.Join {
		if _, _, err := net.SplitHostPort(at); err == nil || c.failed[fmt.Sprintf("peers.join[%d]", i)] {
			continue
		}
		if gossip == 0 {
			c.reject(fmt.Sprintf("peers.join[%d]", i), "expected a port too, since that of peers.listen is any")
			continue
		}
		p.Join[i] = net.JoinHostPort(strings.Trim(at, "[]"), strconv.Itoa(int(gossip)))
	}
}

// defaultS3Region is the region of stores that have none.
const defaultS3Region = "us-east-1"

// checkShared checks what belongs together.
func (c checker) checkShared() {
	s := &c.config.Shared
	for _, key := range []string{"shared", "shared.s3", "shared.s3.bucket", "shared.s3.region", "shared.s3.endpoint"} {
		if c.failed[key] {
			return
		}
	}
	_, given := c.places["shared"]
	if !s.S3.On() {
		if given {
			c.reject("shared.s3.bucket", "missing; expected the name of a bucket such as larder-images")
		}
		return
	}
	switch {
	case s.S3.Region != "":
	case s.S3.Endpoint != "":
		s.S3.Region = defaultS3Region
	default:
		c.reject("shared.s3.region", "missing; expected the bucket's region such as us-east-1, or shared.s3.endpoint")
	}
}
