package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/larder-registry/larder/cmd/larder/envfile"
	"github.com/larder-registry/larder/config"
)

// systemConfig is the configuration file of a packaged host.
const systemConfig = "/etc/larder/larder.yaml"

// settings are the flags for keys of the configuration. They override LARDER_
// variables, which override the file.
type settings struct {
	Config          string  `help:"Configuration file ($$LARDER_CONFIG). Default: ${systemConfig} if it exists. Without one: every ECR host, ECR Public and Docker Hub." type:"path" placeholder:"FILE"`
	Listen          *string `help:"Address for clients. Default: 127.0.0.1:5000." placeholder:"ADDR"`
	Admin           *string `help:"Address for metrics, health and the status page; \"\" for none. Default: 127.0.0.1:5001." placeholder:"ADDR"`
	CacheDir        *string `help:"Folder of the cache. Default: /var/lib/larder for root, else larder in the user's cache folder." placeholder:"DIR"`
	MaxSize         *string `help:"Size limit of the cache, such as 50GiB, or 80% of the file system. Default: 50GiB." placeholder:"SIZE"`
	DefaultUpstream *string `help:"Upstream of requests that do not name one; \"\" for none. Default: docker.io." placeholder:"HOST"`
	TagsTTL         *string `name:"tags-ttl" help:"How long a tag is served before the upstream is asked again. Default: 1m." placeholder:"DURATION"`
	LogLevel        *string `help:"debug, info, warn or error. Default: info." placeholder:"LEVEL"`
	LogFormat       *string `help:"text or json. Default: text." placeholder:"FORMAT"`
}

// load reads the configuration, and returns where it comes from. From then on p and this
// process have the variables of larder.env beside the file, as the unit of the daemon has
// them; the environment comes before it.
func (s settings) load(p *invocation) (cfg *config.Config, source string, err error) {
	file := s.find(p.env, systemConfig)
	source = cmp.Or(file, "the default configuration")
	p.say("configuration: %s", source)
	if file != "" {
		s.readEnvFile(p, filepath.Join(filepath.Dir(file), "larder.env"))
	}
	overrides := config.Env(p.environ())
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
	cfg, err = config.Load(file, overrides...)
	return cfg, source, err
}

// find returns the path of the configuration file, or "" if there is none. An empty
// LARDER_CONFIG means none.
func (s settings) find(env []string, system string) string {
	if s.Config != "" {
		return s.Config
	}
	for _, entry := range slices.Backward(env) { // the last entry counts, as in a process's own environment
		if value, ok := strings.CutPrefix(entry, "LARDER_CONFIG="); ok {
			return value
		}
	}
	if _, err := os.Stat(system); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return system // also if it is not known whether it exists
}

// readEnvFile reads the variables of a file for p and this process, in place of those that an
// earlier call read. A variable that the environment has with the same value is one of the file
// from then on: the unit of the daemon passes the file on, and a reload finds what has changed.
// If the file cannot be read, the variables stay as they are.
func (s settings) readEnvFile(p *invocation, file string) {
	text, err := config.ReadFile(file, 1<<20)
	var found []string
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil:
		found, err = envfile.Parse(string(text))
	}
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		p.say("%s, which the daemon may have its variables from, was not read: %v", file, err)
		return
	}
	for _, entry := range p.fileEnv {
		name, _, _ := strings.Cut(entry, "=")
		_ = os.Unsetenv(name)
	}
	p.env = slices.DeleteFunc(slices.Clone(p.env), func(entry string) bool { return slices.Contains(found, entry) })
	p.fileEnv = nil
	for _, entry := range found {
		name, value, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(p.env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			p.fileEnv = append(p.fileEnv, entry)
			_ = os.Setenv(name, value) // for libraries such as AWS's SDK; a name that was parsed is valid
		}
	}
	if text != nil {
		p.say("environment: %d variables of %s", len(p.fileEnv), file)
	}
}

// say prints a message with --verbose.
func (p *invocation) say(format string, args ...any) {
	if p.verbose {
		fmt.Fprintf(p.stderr, format+"\n", args...)
	}
}
