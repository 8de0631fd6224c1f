package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the configuration file, in bytes: far more than anyone writes,
// and little enough to hold in memory when the path is wrong.
const maxFile = 1 << 20

// Load returns the configuration in the YAML file at path with the overrides
// applied in order, so that a later one wins over an earlier one and all win
// over the file. Without a path it starts from the defaults. Relative paths in
// the file start from the file's folder, those in overrides from the working
// directory.
//
// A list of upstreams in the file replaces the default list. A section without
// a value counts as absent.
//
// If anything is wrong the error is a [Mistakes] with all of it, and there is no
// configuration.
func Load(path string, overrides ...Override) (*Config, error) {
	return LoadChecked(path, nil, overrides...)
}

// LoadChecked is Load with what rules finds in lifecycle rules among the
// mistakes. Without it they are only known to be a list.
func LoadChecked(path string, rules RulesCheck, overrides ...Override) (*Config, error) {
	l := newLoader(path)
	l.rules = rules
	whole := true
	if path != "" {
		whole = l.read()
	}
	for _, o := range overrides {
		l.override(o)
	}
	return l.finish(whole)
}

// A loader gathers one configuration and all that is wrong with it.
type loader struct {
	file     string
	rules    RulesCheck // nil for none
	config   *Config
	places   map[string]place // where each key got the value that it has
	failed   map[string]bool  // keys with a mistake, about which no more is said
	mistakes Mistakes
}

// A place is a line of the file, or the source of an override, with line 0.
type place struct {
	file string
	line int
}

func newLoader(file string) *loader {
	return &loader{
		file:   file,
		config: defaults(),
		places: make(map[string]place),
		failed: make(map[string]bool),
	}
}

func (l *loader) report(at place, key, problem string) {
	l.failed[key] = true
	l.mistakes = append(l.mistakes, Mistake{File: at.file, Line: at.line, Key: key, Problem: problem})
}

// read takes what the file says and reports whether it could be understood as
// a whole, whatever is wrong with single keys.
func (l *loader) read() bool {
	data, err := readBounded(l.file)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err // the file is named already
		}
		l.report(place{file: l.file}, "", "reading the configuration: "+err.Error())
		return false
	}
	return l.parse(data)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("expected at most %d bytes", maxFile)
	}
	return data, err
}

// parse is read for what is in the file.
func (l *loader) parse(data []byte) bool {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return true // nothing but comments
	case err != nil:
		l.reportSyntax(err)
		return false
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.reportSyntax(err)
		return false
	default:
		l.report(place{file: l.file, line: second.Line}, "", "expected one YAML document, got a second one")
	}
	if len(document.Content) != 1 {
		return true
	}
	root, top := document.Content[0], place{file: l.file, line: document.Content[0].Line}
	l.decodeSection("", top, root, func() []field { return fields(l.config, filepath.Dir(l.file)) })
	return true
}

// reportSyntax reports what the YAML parser said. It gives the line in its
// text, and none for the first line.
func (l *loader) reportSyntax(err error) {
	line, problem := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(problem, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, problem = n, text
			}
		}
	}
	l.report(place{file: l.file, line: line}, "", "invalid YAML: "+strings.Join(strings.Fields(problem), " "))
}

// override takes one value from outside the file.
func (l *loader) override(o Override) {
	at := place{file: o.Source}
	f, ok := lookup(fields(l.config, ""), o.Key)
	if !ok {
		l.report(at, o.Key, unknownOverride(o))
		return
	}
	l.decode(o.Key, at, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: o.Value}, f)
}

// lookup finds the field of a key with a plain value.
func lookup(fs []field, key string) (field, bool) {
	name, rest, below := strings.Cut(key, ".")
	for _, f := range fs {
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

// finish completes and checks the configuration. What holds between keys is
// only checked if the whole file is known.
func (l *loader) finish(whole bool) (*Config, error) {
	if whole {
		l.complete()
		l.check()
	}
	if len(l.mistakes) > 0 {
		return nil, l.mistakes.sorted(l.file)
	}
	return l.config, nil
}

// complete fills in the defaults that depend on other keys.
func (l *loader) complete() {
	c := l.config
	if _, ok := l.places["cache.dir"]; !ok {
		dir, err := defaultCacheDir()
		if err != nil {
			l.report(place{file: l.file}, "cache.dir", "not set, and there is no user cache folder to use instead: "+err.Error())
		}
		c.Cache.Dir = dir
	}
	for i := range c.Upstreams {
		if u := &c.Upstreams[i]; u.Endpoint == "" && !isPattern(u.Host) {
			u.Endpoint = defaultEndpoint(u.Host)
		}
	}
	if _, ok := l.places["default_upstream"]; !ok {
		if _, served := c.Match(dockerHub); served {
			c.DefaultUpstream = dockerHub
		}
	}
}

func defaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/larder", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "larder"), nil
}
