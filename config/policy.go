package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/upstream/name"
)

// Policy is a rule about which images are served. The first rule that matches a repository counts.
type Policy struct {
	// Match are the repositories that the rule covers.
	Match name.Pattern
	// Mode is PolicyWarn or PolicyEnforce; "" only for a rule without conditions.
	Mode string
	// Signed is nil if images need no signature.
	Signed *Signed
	// Findings is nil if it does not matter what scans found.
	Findings *Findings
	// Age is how long ago an image must have been pushed, or first seen here; 0 for any.
	Age time.Duration
	// Offline is how long a decision holds that cannot be made again. Default 720h.
	Offline time.Duration
}

// Signed says which signatures of images count: those of any of the two.
type Signed struct {
	Notation *Notation // nil for none
	Cosign   *Cosign   // nil for none
}

// Findings says what ECR's scans may have found.
type Findings struct {
	// Worst is the worst severity that is allowed: none, informational, low, medium, high or critical.
	Worst string
	// OnlyFixable lets only findings count for which there is a fix. Default false.
	OnlyFixable bool
	// Unscanned is "deny" or "allow". Default deny.
	Unscanned string
}

// The values of Findings.Unscanned.
const (
	unscannedDeny  = "deny"
	unscannedAllow = "allow"
)

// AllowsUnscanned reports whether images without a scan are allowed.
func (f Findings) AllowsUnscanned() bool { return f.Unscanned == unscannedAllow }

// Notation says which signatures of notation count. Both paths are absolute.
type Notation struct {
	TrustPolicy string // a file
	TrustStore  string // a folder
}

// Cosign says which signatures of cosign count. There are keys, or identities with a trusted root.
type Cosign struct {
	// Keys are public keys: absolute paths of PEM files, and keys in AWS KMS that begin with awskms://.
	Keys []string
	// TrustedRoot is the absolute path of a file; "" for none.
	TrustedRoot string
	Identities  []Identity
}

// Identity is one that a certificate names: both fields are set.
type Identity struct{ Issuer, Subject string }

// The values of Policy.Mode.
const (
	PolicyWarn    = "warn"    // serve, and say it
	PolicyEnforce = "enforce" // refuse
)

// defaultPolicyOffline is that of access.offline.
const defaultPolicyOffline = 30 * 24 * time.Hour

// HasConditions reports whether the rule can refuse anything.
func (p Policy) HasConditions() bool { return p.Age > 0 || p.Signed != nil || p.Findings != nil }

// pauseImages are those without which no pod starts: of Kubernetes, of EKS in some of its regions'
// accounts, and of Amazon's distribution.
var pauseImages = []string{
	"registry.k8s.io/pause", "public.ecr.aws/eks-distro/kubernetes/pause",
	"602401143452.dkr.ecr.us-east-1.amazonaws.com/eks/pause", "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/pause",
	"602401143452.dkr.ecr.eu-west-1.amazonaws.com/eks/pause", "602401143452.dkr.ecr.eu-central-1.amazonaws.com/eks/pause",
}

// policyProblem is what is wrong, or hardly meant, with a rule.
type policyProblem struct {
	key, text string
	isWarning bool
}

// policyRules are the rules of a configuration while they are checked.
type policyRules struct {
	all    []Policy
	serves func(name.Pattern) bool // whether an upstream serves some of it
	failed func(key string) bool   // whether a mistake in the key was found already
	lineOf func(key string) int    // of the file
	// offline has the hosts of upstreams, and whether they are offline.
	offline map[name.HostPattern]bool
	found   []policyProblem
}

func (r *policyRules) reject(key, text string) {
	r.found = append(r.found, policyProblem{key: key, text: text})
}

// problems returns what is wrong with the rules.
func (r *policyRules) problems() []policyProblem {
	for i, p := range r.all {
		key := fmt.Sprintf("policy[%d]", i)
		if r.failed(key) || r.failed(key+".match") {
			continue
		}
		switch {
		case p.Match == (name.Pattern{}):
			r.reject(key+".match", "missing; expected the repositories that the rule covers, such as docker.io/library/*")
			continue
		case !r.serves(p.Match):
			r.reject(key+".match", fmt.Sprintf("%s covers nothing: no upstream serves such a host, or none allows such a repository", p.Match))
		}
		if p.HasConditions() && p.Mode == "" && !r.failed(key+".mode") {
			r.reject(key+".mode", "missing; expected warn, which serves and says it, or enforce, which refuses")
		}
		if p.Signed != nil && !r.failed(key+".signed") {
			r.checkSigned(key+".signed", p.Signed)
		}
		if p.Findings != nil && !r.failed(key+".findings") {
			r.checkFindings(key+".findings", p)
		}
		r.checkEarlier(i, key)
		r.checkPause(i, key)
	}
	return r.found
}

// checkFindings checks a rule about scans, of which only ECR tells, and only while it can be asked.
func (r *policyRules) checkFindings(key string, p Policy) {
	if p.Findings.Worst == "" && !r.failed(key+".worst") {
		r.reject(key+".worst", "missing; expected the worst severity that is allowed, such as medium")
	}
	for host, offline := range r.offline {
		if offline && host.Overlaps(p.Match.Host) {
			r.reject(key, fmt.Sprintf("not possible while the upstream %s is offline, since only its registry tells what scans found", host))
			return
		}
	}
}

// checkEarlier finds rules of which an earlier one takes all or some.
func (r *policyRules) checkEarlier(i int, key string) {
	p := r.all[i]
	for j, earlier := range r.all[:i] {
		line := r.lineOf(fmt.Sprintf("policy[%d].match", j))
		switch {
		case earlier.Match.Covers(p.Match):
			r.reject(key+".match", fmt.Sprintf("%s covers nothing: the rule on line %d, which comes first, covers all of it", p.Match, line))
			return
		case earlier.Match.Overlaps(p.Match) && !p.Match.Covers(earlier.Match):
			text := fmt.Sprintf("%s overlaps with the rule on line %d, which counts for what both cover", p.Match, line)
			r.found = append(r.found, policyProblem{key + ".match", text, true})
		}
	}
}

// checkPause finds a rule that could keep each pod from starting.
func (r *policyRules) checkPause(i int, key string) {
	p := r.all[i]
	if p.Mode != PolicyEnforce || !p.HasConditions() {
		return
	}
	for _, image := range pauseImages {
		host, repository, _ := strings.Cut(image, "/")
		first := slices.IndexFunc(r.all, func(p Policy) bool { return p.Match.Match(host, repository) })
		if first == i {
			r.reject(key+".match", fmt.Sprintf("%s covers %s, without which no pod starts: put a rule without conditions before it, {match: %q}", p.Match, image, image))
			return
		}
	}
}
