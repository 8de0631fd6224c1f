package config

import "go.yaml.in/yaml/v3"

// A field is a key of the configuration. It has exactly one of set, section,
// list and rules.
type field struct {
	name string
	// set stores a plain value. Its error says what was expected.
	set func(value *yaml.Node) error
	// section returns the keys below this one.
	section func() []field
	// list makes room for n items, in place of those that were there, and returns
	// a field for each.
	list func(n int) []field
	// rules takes a list of lifecycle rules, as JSON.
	rules *string
}

// fields returns the keys of the configuration file, in the order in which
// they are documented. Values go into c; relative paths start from the folder
// base, or from the working directory if it is "".
func fields(c *Config, base string) []field {
	return []field{
		{name: "listen", set: address(&c.Listen)},
		{name: "admin", set: orNone(&c.Admin, address(&c.Admin))},
		{name: "cache", section: func() []field {
			return []field{
				{name: "dir", set: filePath(&c.Cache.Dir, base)},
				{name: "max_size", set: maxSize(&c.Cache.MaxSize)},
				{name: "min_free", set: amount(&c.Cache.MinFree)},
				{name: "low_water", set: fraction(&c.Cache.LowWater)},
				{name: "pin", list: func(n int) []field {
					c.Cache.Pin = make([]string, n)
					items := make([]field, n)
					for i := range items {
						items[i].set = imagePattern(&c.Cache.Pin[i])
					}
					return items
				}},
				{name: "pin_all_platforms", set: truth(&c.Cache.PinAllPlatforms)},
				{name: "scrub_every", set: scrubEvery(&c.Cache.ScrubEvery)},
				{name: "scrub_rate", set: scrubRate(&c.Cache.ScrubRate)},
			}
		}},
		{name: "tags", section: func() []field {
			return []field{
				{name: "ttl", set: duration(&c.Tags.TTL, 0)},
				{name: "stale_if_error", set: duration(&c.Tags.StaleIfError, 0)},
				{name: "negative_ttl", set: duration(&c.Tags.NegativeTTL, 0)},
			}
		}},
		{name: "default_upstream", set: orNone(&c.DefaultUpstream, exactHost(&c.DefaultUpstream))},
		{name: "upstreams", list: func(n int) []field {
			c.Upstreams = make([]Upstream, n)
			items := make([]field, n)
			for i := range items {
				u := &c.Upstreams[i]
				u.Timeout = defaultTimeout
				items[i].section = func() []field { return upstreamFields(u, base) }
			}
			return items
		}},
		{name: "lifecycle", list: func(n int) []field {
			c.Lifecycle = make([]LocalRules, n)
			items := make([]field, n)
			for i := range items {
				r := &c.Lifecycle[i]
				items[i].section = func() []field {
					return []field{
						{name: "match", set: localMatch(&r.Match)},
						{name: "rules", rules: &r.Rules},
					}
				}
			}
			return items
		}},
		{name: "log", section: func() []field {
			return []field{
				{name: "level", set: level(&c.Log.Level)},
				{name: "format", set: logFormat(&c.Log.Format)},
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

func upstreamFields(u *Upstream, base string) []field {
	return []field{
		{name: "host", set: hostOrPattern(&u.Host)},
		{name: "endpoint", set: registryURL(&u.Endpoint)},
		{name: "timeout", set: duration(&u.Timeout, 1)},
		{name: "ecr", section: func() []field {
			u.ECR = defaultECR()
			return []field{
				{name: "api_endpoint", set: httpURL(&u.ECR.APIEndpoint)},
				{name: "region", set: region(&u.ECR.Region)},
				{name: "profile", set: profile(&u.ECR.Profile)},
				{name: "role_arn", set: roleARN(&u.ECR.RoleARN)},
				{name: "external_id", set: externalID(&u.ECR.ExternalID)},
				{name: "session_name", set: sessionName(&u.ECR.SessionName)},
				{name: "lifecycle", set: lifecycle(&u.ECR.Lifecycle)},
				{name: "replicas", list: texts(&u.ECR.Replicas, regionOrHost)},
				{name: "pull_through", list: texts(&u.ECR.PullThrough, pullThroughPrefix)},
				{name: "immutable_tags", set: truth(&u.ECR.ImmutableTags)},
				{name: "keep_alive", set: keepAlive(&u.ECR.KeepAlive)},
			}
		}},
		{name: "auth", section: func() []field {
			return []field{
				{name: "username", set: username(&u.Auth.Username)},
				{name: "password_file", set: filePath(&u.Auth.PasswordFile, base)},
				{name: "docker_config", set: filePath(&u.Auth.DockerConfig, base)},
			}
		}},
		{name: "allow", list: texts(&u.Allow, repositoryPattern)},
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
