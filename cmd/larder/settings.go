package main

import (
	"strings"

	"github.com/larder-registry/larder/config"
)

// settings are the flags for keys of the configuration. They override LARDER_
// variables, which override the file.
type settings struct {
	Config          string  `help:"Configuration file ($$LARDER_CONFIG). Without one: every ECR host, ECR Public and Docker Hub." type:"path" placeholder:"FILE"`
	Listen          *string `help:"Address for clients." placeholder:"ADDR"`
	Admin           *string `help:"Address for metrics, health and the status page; \"\" for none." placeholder:"ADDR"`
	CacheDir        *string `help:"Folder of the cache." placeholder:"DIR"`
	MaxSize         *string `help:"Size limit of the cache, such as 50GiB, or 80% of the file system." placeholder:"SIZE"`
	DefaultUpstream *string `help:"Upstream of requests that do not name one; \"\" for none." placeholder:"HOST"`
	TagsTTL         *string `name:"tags-ttl" help:"How long a tag is served before the upstream is asked again." placeholder:"DURATION"`
	LogLevel        *string `help:"debug, info, warn or error." placeholder:"LEVEL"`
	LogFormat       *string `help:"text or json." placeholder:"FORMAT"`
}

// load reads the configuration.
func (s settings) load(env []string) (*config.Config, error) {
	overrides := config.Env(env)
	for _, flag := range []struct {
		key, name string
		value     *string
	}{
		{"listen", "--listen", s.Listen},
		{"admin", "--admin", s.Admin},
		{"cache.dir", "--cache-dir", s.CacheDir},
		{"cache.max_size", "--max-size", s.MaxSize},
		{"default_upstream", "--default-upstream", s.DefaultUpstream},
		{"tags.ttl", "--tags-ttl", s.TagsTTL},
		{"log.level", "--log-level", s.LogLevel},
		{"log.format", "--log-format", s.LogFormat},
	} {
		if flag.value != nil {
			overrides = append(overrides, config.Override{Key: flag.key, Value: *flag.value, Source: flag.name})
		}
	}
	return config.Load(s.file(env), overrides...)
}

// file returns the path of the configuration file, or "" if there is none.
func (s settings) file(env []string) string {
	file := s.Config
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "LARDER_CONFIG="); ok && s.Config == "" {
			file = value // the last entry counts, as in a process's own environment
		}
	}
	return file
}
