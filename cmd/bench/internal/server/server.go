package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/process"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// A Server is a program that runs.
type Server struct {
	program *Program
	place   place
	target  load.Target
	proc    *process.Process // nil for the upstream, which is not measured
	closed  bool
}

// Start runs a program in a new folder in dir. maxSize is how many bytes it may store, or 0 for its default.
func Start(ctx context.Context, p *Program, dir string, u *upstream.Upstream, maxSize int64) (*Server, error) {
	s := &Server{program: p, target: load.Target{Name: p.name}}
	if p.command != nil {
		own, err := os.MkdirTemp(dir, "server-")
		if err != nil {
			return nil, err
		}
		addrs, err := process.FreeAddrs(ctx, 2)
		if err != nil {
			return nil, err
		}
		s.place = place{own, addrs[0], addrs[1], maxSize, u}
		s.target.Addr = s.place.addr
		cmd, err := p.command(ctx, s.place)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", p.name, err)
		}
		if s.proc, err = process.Start(p.name, own, cmd); err != nil {
			return nil, err
		}
		if err := s.proc.AwaitPort(ctx, s.place.addr); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if p.target != nil {
		p.target(&s.target, u)
	}
	return s, nil
}

// Name is that of its program.
func (s *Server) Name() string { return s.program.name }

// Target is where clients find it.
func (s *Server) Target() load.Target { return s.target }

// Close ends the server and removes its folder. Further calls do nothing.
func (s *Server) Close() error {
	if s.closed || s.proc == nil {
		return nil
	}
	s.closed = true
	return errors.Join(s.proc.Stop(), os.RemoveAll(s.place.dir))
}

// Log returns the end of the server's log.
func (s *Server) Log() string {
	if s.proc == nil {
		return ""
	}
	return s.proc.Tail()
}

// Usage returns what the server has used so far. It reports false for the upstream, whose usage is not measured.
func (s *Server) Usage() (process.Usage, bool, error) {
	if s.proc == nil {
		return process.Usage{}, false, nil
	}
	usage, err := s.proc.Usage()
	return usage, true, err
}

// AwaitIdle returns when the server has nothing left to do.
func (s *Server) AwaitIdle(ctx context.Context) error {
	if s.proc == nil {
		return nil
	}
	return s.proc.AwaitIdle(ctx)
}

// SystemCalls counts the server's system calls while load runs. Without strace it returns an error that matches
// exec.ErrNotFound.
func (s *Server) SystemCalls(ctx context.Context, load func() error) (int64, error) {
	if s.proc == nil {
		return 0, fmt.Errorf("count the system calls of %s: %w", s.Name(), errors.ErrUnsupported)
	}
	return s.proc.SystemCalls(ctx, load)
}

// Allocations counts the objects that the server allocates while load runs, for a server that publishes Go's metrics. For
// others the error is errors.ErrUnsupported.
func (s *Server) Allocations(ctx context.Context, load func() error) (float64, error) {
	before, err := s.mallocs(ctx)
	if err != nil {
		return 0, err
	}
	if err := load(); err != nil {
		return 0, err
	}
	after, err := s.mallocs(ctx)
	return after - before, err
}

// mallocs returns how many objects the server has allocated so far.
func (s *Server) mallocs(ctx context.Context) (float64, error) {
	unsupported := fmt.Errorf("count the allocations of %s: %w", s.Name(), errors.ErrUnsupported)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.place.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, errors.Join(unsupported, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(unsupported, lines.Err())
}

// Scrub has the server read and check everything it stores. Only Larder can.
func (s *Server) Scrub(ctx context.Context) error {
	if s.program.scrub == nil {
		return fmt.Errorf("scrub %s: %w", s.Name(), errors.ErrUnsupported)
	}
	return s.program.scrub(ctx, s.place)
}

// Seed copies the files of an image to where the server looks for them, if it serves files and fetches nothing.
func (s *Server) Seed(ctx context.Context, u *upstream.Upstream, img *upstream.Image) error {
	if s.program.fileOf == nil {
		return nil
	}
	from := directTarget(u)
	c := load.NewClient(ctx)
	defer c.Close()
	manifest := img.Manifest().Digest.String()
	if err := s.copyFile(c, from, img.ManifestPath(), manifest); err != nil {
		return err
	}
	if err := os.Link(s.program.fileOf(s.place, manifest), s.program.fileOf(s.place, upstream.Tag)); err != nil {
		return err
	}
	for _, blob := range img.Blobs() {
		if err := s.copyFile(c, from, img.BlobPath(blob.Digest), blob.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) copyFile(c *load.Client, from load.Target, path, reference string) error {
	resp, err := c.Do(from, load.Request{Path: path})
	if err != nil {
		return err
	}
	f, err := os.Create(s.program.fileOf(s.place, reference))
	if err != nil {
		return err
	}
	_, err = resp.Copy(f)
	return errors.Join(err, f.Close())
}
