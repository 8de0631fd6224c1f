package config

import (
	"strings"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// field is a key of the configuration. It has exactly one of set, section, list
// and rules.
type field struct {
	name string
	// set stores a plain value.
	set setter
	// section returns the keys below this one.
	section func() []field
	// list replaces the items of a list by n new ones, and returns a field for each.
	list func(n int) []field
	// rules is where a list of lifecycle rules is stored.
	rules *lifecycle.Policy
}

// fields returns the keys of the configuration file, in the order of their
// documentation. Values are stored in c. Relative paths start from the folder base,
// or from the working directory if base is "".
func fields(c *Config, base string) []field {
	return []field{
		{name: "listen", set: address(&c.Listen)},
		{name: "admin", set: orNone(&c.Admin, address(&c.Admin))},
		{name: "names", list: items(&c.Names, hostName)},
		{name: "tls", section: func() []field {
			return []field{
				{name: "cert", set: pemFile(&c.TLS.Cert, base)},
				{name: "key", set: pemFile(&c.TLS.Key, base)},
				{name: "client_ca", set: pemFile(&c.TLS.ClientCA, base)},
			}
		}},
		{name: "auth", section: func() []field {
			return []field{
				{name: "htpasswd", set: hidden(filePath(&c.Auth.Htpasswd, base), wantFile)},
			}
		}},
		{name: "cache", section: func() []field {
			return []field{
				{name: "dir", set: filePath(&c.Cache.Dir, base)},
				{name: "max_size", set: maxSize(&c.Cache.MaxSize)},
				{name: "min_free", set: amount(&c.Cache.MinFree)},
				{name: "low_water", set: fraction(&c.Cache.LowWater)},
				{name: "pin", list: items(&c.Cache.Pin, taggedPattern)},
				{name: "pin_all_platforms", set: truth(&c.Cache.PinAllPlatforms)},
				{name: "verify_on_read", set: choice(&c.Cache.VerifyOnRead, "never", "first", "always")},
				{name: "scrub_every", set: scrubEvery(&c.Cache.ScrubEvery)},
				{name: "scrub_rate", set: scrubRate(&c.Cache.ScrubRate)},
			}
		}},
		{name: "tags", section: func() []field {
			return []field{
				{name: "ttl", set: duration(&c.Tags.TTL, 0)},
				{name: "stale_if_error", set: duration(&c.Tags.StaleIfError, 0)},
				{name: "stale_if_gone", set: duration(&c.Tags.StaleIfGone, 0)},
				{name: "negative_ttl", set: duration(&c.Tags.NegativeTTL, 0)},
				{name: "immutable", list: items(&c.Tags.Immutable, taggedPattern)},
				{name: "cooldown", list: func(n int) []field {
					c.Tags.Cooldown = make([]Cooldown, n)
					all := make([]field, n)
					for i := range all {
						entry := &c.Tags.Cooldown[i]
						entry.First = firstServe
						all[i].section = func() []field {
							return []field{
								{name: "match", set: taggedPattern(&entry.Match)},
								{name: "for", set: duration(&entry.For, 1)},
								{name: "first", set: choice(&entry.First, firstServe, firstWait)},
							}
						}
					}
					return all
				}},
			}
		}},
		{name: "link", section: func() []field {
			return []field{
				{name: "rate", set: linkRate(&c.Link.Rate)},
				{name: "background", section: func() []field {
					return []field{
						{name: "rate", set: linkRate(&c.Link.Background.Rate)},
						{name: "hours", set: hours(&c.Link.Background.Hours)},
					}
				}},
			}
		}},
		{name: "import", section: func() []field {
			return []field{
				{name: "verify", list: items(&c.Import.Verify, func(to *string) setter { return publicKey(to, base) })},
			}
		}},
		{name: "access", section: func() []field {
			return []field{
				{name: "recheck", set: duration(&c.Access.Recheck, 1)},
				{name: "offline", set: duration(&c.Access.Offline, 0)},
				{name: "key_file", set: filePath(&c.Access.KeyFile, base)},
				{name: "realm", set: orNone(&c.Access.Realm, httpURL(&c.Access.Realm))},
			}
		}},
		{name: "audit", section: func() []field {
			return []field{
				{name: "file", set: orNone(&c.Audit.File, auditFile(&c.Audit.File, base))},
				{name: "required", set: truth(&c.Audit.Required)},
			}
		}},
		{name: "peers", section: func() []field {
			return []field{
				{name: "listen", set: address(&c.Peers.Listen)},
				{name: "advertise", set: peerAddress(&c.Peers.Advertise)},
				{name: "join", list: items(&c.Peers.Join, peerToJoin)},
				{name: "key_file", set: hidden(filePath(&c.Peers.KeyFile, base), wantFile)},
				{name: "zone", set: orNone(&c.Peers.Zone, zone(&c.Peers.Zone))},
				{name: "span", set: choice(&c.Peers.Span, SpanZone, SpanCluster)},
				{name: "upload", set: linkRate(&c.Peers.Upload)},
			}
		}},
		{name: "shared", section: func() []field {
			return []field{
				{name: "s3", section: func() []field {
					return []field{
						{name: "bucket", set: bucket(&c.Shared.S3.Bucket)},
						{name: "prefix", set: orNone(&c.Shared.S3.Prefix, prefix(&c.Shared.S3.Prefix))},
						{name: "region", set: region(&c.Shared.S3.Region)},
						{name: "endpoint", set: httpURL(&c.Shared.S3.Endpoint)},
						{name: "path_style", set: truth(&c.Shared.S3.PathStyle)},
						{name: "write", set: truth(&c.Shared.S3.Write)},
						{name: "rate", set: linkRate(&c.Shared.S3.Rate)},
					}
				}},
				{name: "key_file", set: hidden(filePath(&c.Shared.KeyFile, base), wantFile)},
			}
		}},
		{name: "default_upstream", set: orNone(&c.DefaultUpstream, exactHost(&c.DefaultUpstream))},
		{name: "upstreams", list: func(n int) []field {
			c.Upstreams = make([]Upstream, n)
			all := make([]field, n)
			for i := range all {
				u := &c.Upstreams[i]
				u.Timeout, u.Access = defaultTimeout, AccessNode
				all[i].section = func() []field { return upstreamFields(u, base) }
			}
			return all
		}},
		{name: "keep", list: func(n int) []field {
			c.Keep = make([]Keep, n)
			all := make([]field, n)
			for i := range all {
				k := &c.Keep[i]
				k.Every, k.Switch = defaultKeepEvery, keepWhole
				all[i].section = func() []field { return keepFields(k, base) }
			}
			return all
		}},
		{name: "policy", list: func(n int) []field {
			c.Policy = make([]Policy, n)
			all := make([]field, n)
			for i := range all {
				p := &c.Policy[i]
				p.Offline = defaultPolicyOffline
				all[i].section = func() []field { return policyFields(p, base) }
			}
			return all
		}},
		{name: "lifecycle", list: func(n int) []field {
			c.Lifecycle = make([]LocalRules, n)
			all := make([]field, n)
			for i := range all {
				r := &c.Lifecycle[i]
				all[i].section = func() []field {
					return []field{
						{name: "match", set: pattern(&r.Match)},
						{name: "rules", rules: &r.Policy},
					}
				}
			}
			return all
		}},
		{name: "log", section: func() []field {
			return []field{
				{name: "level", set: level(&c.Log.Level)},
				{name: "format", set: choice(&c.Log.Format, "text", "json")},
			}
		}},
		{name: "telemetry", section: func() []field {
			return []field{
				{name: "otlp_endpoint", set: orNone(&c.Telemetry.OTLPEndpoint, httpURL(&c.Telemetry.OTLPEndpoint))},
				{name: "sample_ratio", set: ratio(&c.Telemetry.SampleRatio)},
				{name: "repository_label", set: truth(&c.Telemetry.RepositoryLabel)},
			}
		}},
	}
}

func keepFields(k *Keep, base string) []field {
	return []field{
		{name: "images", list: items(&k.Images, image)},
		{name: "file", set: filePath(&k.File, base)},
		{name: "platforms", list: items(&k.Platforms, platform)},
		{name: "every", set: keepEvery(&k.Every)},
		{name: "switch", set: choice(&k.Switch, keepWhole, KeepAtOnce)},
		{name: "referrers", set: truth(&k.Referrers)},
	}
}

func policyFields(p *Policy, base string) []field {
	return []field{
		{name: "match", set: untaggedPattern(&p.Match)},
		{name: "mode", set: choice(&p.Mode, PolicyWarn, PolicyEnforce)},
		{name: "signed", section: func() []field {
			p.Signed = new(Signed)
			return signedFields(p.Signed, base)
		}},
		{name: "findings", section: func() []field {
			p.Findings = &Findings{Unscanned: unscannedDeny}
			return []field{
				{name: "worst", set: choice(&p.Findings.Worst, "none", "informational", "low", "medium", "high", "critical")},
				{name: "only_fixable", set: truth(&p.Findings.OnlyFixable)},
				{name: "unscanned", set: choice(&p.Findings.Unscanned, unscannedDeny, unscannedAllow)},
			}
		}},
		{name: "age", set: duration(&p.Age, 1)},
		{name: "offline", set: duration(&p.Offline, 0)},
	}
}

func signedFields(s *Signed, base string) []field {
	return []field{
		{name: "notation", section: func() []field {
			s.Notation = new(Notation)
			return []field{
				{name: "trust_policy", set: filePath(&s.Notation.TrustPolicy, base)},
				{name: "trust_store", set: filePath(&s.Notation.TrustStore, base)},
			}
		}},
		{name: "cosign", section: func() []field {
			s.Cosign = new(Cosign)
			return []field{
				{name: "keys", list: items(&s.Cosign.Keys, func(to *string) setter { return publicKey(to, base) })},
				{name: "trusted_root", set: filePath(&s.Cosign.TrustedRoot, base)},
				{name: "identities", list: func(n int) []field {
					s.Cosign.Identities = make([]Identity, n)
					all := make([]field, n)
					for i := range all {
						one := &s.Cosign.Identities[i]
						all[i].section = func() []field {
							return []field{
								{name: "issuer", set: plainText(&one.Issuer, "the issuer of an identity, such as https://token.actions.githubusercontent.com")},
								{name: "subject", set: plainText(&one.Subject, "the subject of an identity, such as a URL or an e-mail address")},
							}
						}
					}
					return all
				}},
			}
		}},
	}
}

// plainText accepts any text but an empty one.
func plainText(to *string, want string) setter {
	return valid(to, want, func(string) bool { return true })
}

func upstreamFields(u *Upstream, base string) []field {
	return []field{
		{name: "host", set: hostOrPattern(&u.Host)},
		{name: "endpoint", set: registryURL(&u.Endpoint)},
		{name: "timeout", set: duration(&u.Timeout, 1)},
		{name: "offline", set: truth(&u.Offline)},
		{name: "access", set: choice(&u.Access, AccessNode, AccessClient)},
		{name: "ecr", section: func() []field {
			u.ECR = defaultECR()
			return []field{
				{name: "api_endpoint", set: httpURL(&u.ECR.APIEndpoint)},
				{name: "region", set: region(&u.ECR.Region)},
				{name: "profile", set: profile(&u.ECR.Profile)},
				{name: "role_arn", set: roleARN(&u.ECR.RoleARN)},
				{name: "external_id", set: externalID(&u.ECR.ExternalID)},
				{name: "session_name", set: sessionName(&u.ECR.SessionName)},
				{name: "lifecycle", set: choice(&u.ECR.Lifecycle, lifecycleHint, lifecycleEnforce, lifecycleOff)},
				{name: "replicas", list: items(&u.ECR.Replicas, regionOrHost)},
				{name: "pull_through", list: items(&u.ECR.PullThrough, pullThroughPrefix)},
				{name: "immutable_tags", set: truth(&u.ECR.ImmutableTags)},
				{name: "keep_alive", set: keepAlive(&u.ECR.KeepAlive)},
			}
		}},
		{name: "auth", section: func() []field {
			return []field{
				{name: "username", set: username(&u.Auth.Username)},
				{name: "password_file", set: hidden(filePath(&u.Auth.PasswordFile, base), wantFile)},
				{name: "docker_config", set: hidden(filePath(&u.Auth.DockerConfig, base), wantFile)},
				{name: "realms", list: items(&u.Auth.Realms, func(to *string) setter { return hidden(realmHost(to), wantRealm) })},
			}
		}},
		{name: "allow", list: items(&u.Allow, repositoryPattern)},
	}
}

// items returns the list of a field whose items are plain values. set returns the
// setter of one item.
func items[T any](to *[]T, set func(to *T) setter) func(n int) []field {
	return func(n int) []field {
		*to = make([]T, n)
		all := make([]field, n)
		for i := range all {
			all[i].set = set(&(*to)[i])
		}
		return all
	}
}

// join returns the full name of a key in a section, or of a key at the top if
// the section is "".
func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

func names(fields []field) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.name
	}
	return all
}

// lookup finds the field of a key with a plain value.
func lookup(fields []field, key string) (field, bool) {
	name, rest, below := strings.Cut(key, ".")
	for _, f := range fields {
		switch {
		case f.name != name:
		case below && f.section != nil:
			return lookup(f.section(), rest)
		case !below && f.set != nil:
			return f, true
		}
	}
	return field{}, false
}

// plainKeys returns the full names of the keys with a plain value outside of
// lists, in the order of the fields.
func plainKeys(section string, fields []field) []string {
	var keys []string
	for _, f := range fields {
		key := join(section, f.name)
		switch {
		case f.set != nil:
			keys = append(keys, key)
		case f.section != nil:
			keys = append(keys, plainKeys(key, f.section())...)
		}
	}
	return keys
}
