package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/upstream/name"
)

// maxFile bounds the configuration file, in bytes. It is far more than a real
// configuration needs, and fits in memory if the path is wrong.
const maxFile = 1 << 20

// Load returns the configuration in the YAML file at path, with the overrides
// applied in their order: a later one wins over an earlier one, and all win over
// the file. Without a path it starts from the defaults. Relative paths in the file
// start from the file's folder, and those in overrides from the working directory.
//
// A list of upstreams in the file replaces the default list. A section without
// a value counts as absent.
//
// If anything is wrong, the error is a [Mistakes] with everything that is, and the
// configuration is nil.
func Load(path string, overrides ...Override) (*Config, error) {
	l := newLoader(path)
	whole := true
	if path != "" {
		whole = l.read()
	}
	for _, o := range overrides {
		l.override(o)
	}
	return l.finish(whole)
}

// loader builds one configuration.
type loader struct {
	*report
	config *Config
}

func newLoader(file string) *loader {
	return &loader{report: newReport(file), config: defaults()}
}

// read decodes the file. It returns whether the whole file could be read, even if
// single keys have mistakes.
func (l *loader) read() bool {
	data, err := ReadFile(l.file, maxFile)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err // the mistake names the file
		}
		l.add(place{file: l.file}, "", "reading the configuration: "+err.Error()+readers(l.file, err))
		return false
	}
	return l.parse(data)
}

// readers says which group may read a file that this process may not.
func readers(file string, err error) string {
	if !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	if info, err := os.Stat(file); err == nil && info.Mode()&0o040 != 0 {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			if group, err := user.LookupGroupId(strconv.FormatUint(uint64(stat.Gid), 10)); err == nil {
				return fmt.Sprintf(": root and members of group %s may read it", group.Name)
			}
		}
	}
	return ": run the command as root or as the daemon's user"
}

// pipeTimeout is how long the writer of a pipe may take.
const pipeTimeout = 10 * time.Second

// ReadFile reads a file that the configuration names, or the configuration itself, of at most
// limit bytes. It does not wait for a pipe that nobody writes to: a daemon could not end then.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	isPipe := info.Mode()&fs.ModeNamedPipe != 0
	_ = f.SetReadDeadline(time.Now().Add(pipeTimeout)) // files have none, and need none
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("expected at most %d bytes", limit)}
	case isPipe && len(data) == 0:
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("expected a file, got a pipe that nobody writes to")}
	}
	return data, nil
}

// parse is read for the content of the file.
func (l *loader) parse(data []byte) bool {
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := documents.Decode(&document); {
	case errors.Is(err, io.EOF):
		return true // only comments
	case err != nil:
		l.reportSyntax(err)
		return false
	}
	switch err := documents.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.reportSyntax(err)
		return false
	default:
		l.add(place{file: l.file, line: second.Line}, "", "expected one YAML document, got a second one")
	}
	if len(document.Content) != 1 {
		return true
	}
	root, top := document.Content[0], place{file: l.file, line: document.Content[0].Line}
	decoder{l.report}.decodeSection("", top, root, func() []field { return fields(l.config, filepath.Dir(l.file)) })
	return true
}

// reportSyntax reports an error of the YAML parser. Its text begins with the line,
// except for the first line.
func (l *loader) reportSyntax(err error) {
	line, problem := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(problem, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, problem = n, text
			}
		}
	}
	if isStar(problem) {
		problem = "a value that begins with * is an alias of YAML: put it in quotes"
	} else {
		problem = "invalid YAML: " + strings.Join(strings.Fields(problem), " ")
	}
	l.add(place{file: l.file, line: line}, "", problem)
}

// isStar reports whether an error of the YAML parser is about a value that begins with a
// star and is not in quotes, which is the name of an alias to the parser.
func isStar(problem string) bool {
	return strings.HasPrefix(problem, "unknown anchor") || problem == "did not find expected alphabetic or numeric character"
}

// override decodes one value from outside the file.
func (l *loader) override(o Override) {
	at := place{file: o.Source}
	f, ok := lookup(fields(l.config, ""), o.Key)
	if !ok {
		l.add(at, o.Key, unknownOverride(o))
		return
	}
	if _, given := l.places[o.Key]; given && o.Default {
		return
	}
	decoder{l.report}.decode(o.Key, at, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: o.Value}, f)
}

// finish completes and checks the configuration. What holds between keys can only
// be checked if the whole file was read.
func (l *loader) finish(whole bool) (*Config, error) {
	if whole {
		l.complete()
		checker{l.report, l.config}.check()
	}
	if len(l.mistakes) > 0 {
		return nil, l.mistakes.sorted(l.file)
	}
	l.config.Warnings = l.warnings.sorted(l.file)
	return l.config, nil
}

// complete sets the defaults that depend on other keys.
func (l *loader) complete() {
	c := l.config
	if _, given := l.places["cache.dir"]; !given {
		dir, err := defaultCacheDir()
		if err != nil {
			l.add(place{file: l.file}, "cache.dir", "not set, and there is no user cache folder to use instead: "+err.Error())
		}
		c.Cache.Dir = dir
	}
	for i := range c.Upstreams {
		if u := &c.Upstreams[i]; u.Endpoint == "" && !u.Host.HasStar() {
			u.Endpoint = defaultEndpoint(string(u.Host))
		}
	}
	if _, given := l.places["default_upstream"]; !given {
		if _, served := c.Match(name.DockerHub); served {
			c.DefaultUpstream = name.DockerHub
		}
	}
}
