package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// contender is something to pull images from.
type contender struct {
	name string
	// fixed says that it serves files that were laid there before, and fetches nothing.
	fixed bool
	// begin prepares it, once; its error says that the contender is missing, and why.
	begin func(ctx context.Context, l *lab) error
	// start runs it on an empty folder. It is nil for what runs anyway.
	start func(ctx context.Context, l *lab, in place) (*exec.Cmd, error)
	// dress makes the server of a running process say its own, where that is needed.
	dress func(l *lab, s *server)
}

// place is where a server runs.
type place struct {
	dir   string // its own, empty
	addr  string // where it is to listen
	admin string // where it may listen beside
	limit int64  // of what it may keep, in bytes; 0 for what it takes by default
}

// server is a contender that runs.
type server struct {
	*contender
	place
	proc   *process // nil for the upstream, which is not measured
	closed bool
	query  string // what clients say beside the path
	token  string // what clients send as Authorization, if anything
}

// lookup of a contender that is not there, for all who want one by name.
var errUnknown = errors.New("no such server")

// startServer runs a contender in a new folder.
func (l *lab) startServer(ctx context.Context, c *contender, limit int64) (*server, error) {
	s := &server{contender: c}
	if c.start != nil {
		dir, err := os.MkdirTemp(l.dir, "server-")
		if err != nil {
			return nil, err
		}
		addrs, err := freeAddrs(ctx, 2)
		if err != nil {
			return nil, err
		}
		s.place = place{dir, addrs[0], addrs[1], limit}
		cmd, err := c.start(ctx, l, s.place)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", c.name, err)
		}
		if s.proc, err = startProcess(c.name, dir, cmd); err != nil {
			return nil, err
		}
		if err := s.proc.awaitPort(ctx, s.addr); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	if c.dress != nil {
		c.dress(l, s)
	}
	return s, nil
}

// close ends the server and removes what it kept.
func (s *server) close() error {
	s.closed = true
	if s.proc == nil {
		return nil
	}
	return errors.Join(s.proc.stop(), os.RemoveAll(s.dir))
}

// lastWords is the end of what the server logged.
func (s *server) lastWords() string {
	if s.proc == nil {
		return ""
	}
	return s.proc.tail()
}

// usage is what the server took so far; nothing for the upstream.
func (s *server) usage() (usage, error) {
	if s.proc == nil {
		return usage{}, nil
	}
	return s.proc.usage()
}

const (
	restStep = 50 * time.Millisecond
	restMax  = 20 * time.Second
)

// rest returns when the server does nothing any more, so that what it does after its last answer is counted as its
// work, and not in the way of the next.
func (s *server) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restMax)
	defer cancel()
	tick := time.NewTicker(restStep)
	defer tick.Stop()
	before, err := s.usage()
	for quiet := 0; err == nil && quiet < 3; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not come to rest: %w", s.name, ctx.Err())
		case <-tick.C:
		}
		var now usage
		if now, err = s.usage(); now.cpu == before.cpu {
			quiet++
		} else {
			quiet = 0
		}
		before = now
	}
	return err
}

// direct is the upstream itself.
func direct() *contender {
	return &contender{
		name: "direct",
		dress: func(l *lab, s *server) {
			endpoint, _ := url.Parse(l.upstream.Endpoint) // the fake's own
			s.addr, s.token = endpoint.Host, l.upstream.token
		},
	}
}

// larder is Larder's binary: the one at path, or built here where that is empty.
func larder(name, path string) *contender {
	return &contender{
		name: name,
		begin: func(ctx context.Context, l *lab) error {
			if path != "" {
				_, err := os.Stat(path)
				return err
			}
			path = filepath.Join(l.dir, "larder")
			return command(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, module+"/cmd/larder")
		},
		start: func(ctx context.Context, l *lab, in place) (*exec.Cmd, error) {
			file := filepath.Join(in.dir, "larder.yaml")
			config := fmt.Sprintf(larderConfig, in.addr, in.admin, filepath.Join(in.dir, "cache"), l.upstream.Host, l.upstream.Endpoint, region)
			if in.limit > 0 {
				config += fmt.Sprintf(larderLimit, in.limit)
			}
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, path, "serve", "--config", file)
			cmd.Env = []string{"HOME=" + in.dir, "AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey}
			return cmd, nil
		},
		// As containerd asks a mirror.
		dress: func(l *lab, s *server) { s.query = "?ns=" + l.upstream.Host },
	}
}

const module = "github.com/larder-registry/larder"

// larderConfig leaves everything at its default that can be.
const larderConfig = `listen: %s
admin: %s
upstreams:
  - host: %[4]s
    endpoint: %[5]s
    ecr: {api_endpoint: "%[5]s", region: %[6]s}
cache:
  dir: %[3]s
`

const larderLimit = `  max_size: %dB
`

// command runs a program to its end.
func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// ourselves returns this program, to be run as one of its hidden commands. A test binary has main in its TestMain.
func ourselves(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), asBench+"=1")
	return cmd, nil
}

// asBench is set in the environment of a test binary that is to be the bench.
const asBench = "LARDER_BENCH_MAIN"
