package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// lab is one run: the upstream, who takes part, and what was found.
type lab struct {
	dir      string // for everything; removed in the end
	rounds   int
	scale    int64 // sizes and times are divided by it
	stderr   io.Writer
	upstream *upstream

	contenders []*contender
	seeds      uint64 // given to images so far
	bases      uint64 // and to what images share
	report     report
}

// scenario is one case: what is asked of the servers, and how it is measured.
type scenario struct {
	name  string // by which --cases selects it
	about string
	// headline is what of it is shown where there is little room.
	headline []metric
	// skip tells who does not take part, and why.
	skip map[string]string
	// only, if not empty, is who takes part.
	only []string
	// leaves says that a turn leaves its server at work, so that it is ended with it, and there is one round.
	leaves bool
	rounds int   // at most; as many as were asked for if 0
	limit  int64 // of what a server may keep, in bytes; 0 for what it takes by default
	shape  shape // of the way to the upstream
	// prepare makes what the rounds need, and returns what is measured.
	prepare func(ctx context.Context, l *lab, servers []*server) (turn, error)
}

// turn has a server do its work once, and measures it. The lab adds what the server took.
type turn func(ctx context.Context, s *server, round int) (*outcome, error)

// outcome is what a turn found out itself.
type outcome struct {
	served int64 // bytes that clients got; 0 if CPU is not to be told by them
	asked  int64 // requests that clients made; 0 likewise
	wanted int64 // bytes that had to come from the upstream; 0 if none, or not to be told
	measures
}

// run goes through a scenario in rounds: in each, every server has its turn, and begins its successor's.
func (l *lab) run(ctx context.Context, sc *scenario) (err error) {
	if err := l.upstream.reshape(ctx, shape{}); err != nil {
		return err
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			if !s.closed {
				err = errors.Join(err, s.close())
			}
		}
	}()
	for _, c := range l.contenders {
		if !l.takesPart(sc, c) {
			continue
		}
		s, err := l.startServer(ctx, c, sc.limit)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			for _, s := range servers {
				fmt.Fprintf(l.stderr, "\nWhat %s said last:\n%s\n", s.name, s.lastWords())
			}
		}
	}()
	measure, err := sc.prepare(ctx, l, servers)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := l.upstream.reshape(ctx, sc.shape); err != nil {
		return err
	}
	rounds := l.rounds
	if sc.rounds > 0 {
		rounds = min(rounds, sc.rounds)
	}
	if sc.leaves {
		rounds = 1
	}
	for round := range rounds {
		for i := range servers {
			s := servers[(i+round)%len(servers)]
			l.progress("%s, round %d of %d: %s", sc.name, round+1, rounds, s.name)
			if err := l.turn(ctx, sc, s, round, measure); err != nil {
				return err
			}
			if sc.leaves {
				if err := s.close(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// progress shows on a terminal what is going on, in one line, which the next one takes the place of.
func (l *lab) progress(format string, args ...any) {
	if f, ok := l.stderr.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			fmt.Fprintf(f, "%-78s\r", fmt.Sprintf(format, args...))
		}
	}
}

func (l *lab) takesPart(sc *scenario, c *contender) bool {
	if _, skipped := sc.skip[c.name]; skipped {
		return false
	}
	return len(sc.only) == 0 || slices.Contains(sc.only, c.name)
}

// turn measures one server once, from rest to rest.
func (l *lab) turn(ctx context.Context, sc *scenario, s *server, round int, measure turn) error {
	if err := l.settle(); err != nil {
		return err
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	if _, err := l.upstream.sent(ctx); err != nil {
		return err
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	out, err := measure(ctx, s, round)
	if err != nil {
		return err
	}
	if !sc.leaves {
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
	after, err := s.usage()
	if err != nil {
		return err
	}
	sent, err := l.upstream.sent(ctx)
	if err != nil {
		return err
	}
	if out.measures == nil {
		out.measures = make(measures)
	}
	cpu := after.cpu - before.cpu
	if s.proc != nil {
		if out.served > 0 {
			out.measures[cpuPerGB] = cpu.Seconds() / (float64(out.served) / gb)
		}
		if out.asked > 0 {
			out.measures[cpuPerRequest] = float64(cpu.Microseconds()) / float64(out.asked)
		}
		out.measures[peakMemory] = float64(after.peak) / 1e6
	}
	if out.wanted > 0 {
		out.measures[upstreamBytes] = float64(sent.Bytes) / float64(out.wanted)
		out.measures[upstreamAsked] = float64(sent.Requests)
	}
	l.report.add(sc, s.name, out.measures)
	return nil
}

// settle has the disk write what waits for it, so that no server pays for another's files.
func (l *lab) settle() error {
	dir, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", l.dir, err)
	}
	return nil
}

// image adds an image that no other is like.
func (l *lab) image(ctx context.Context, layers ...int64) (*image, error) {
	return l.imageOn(ctx, nil, layers...)
}

// imageOn is image with layers that it shares with others.
func (l *lab) imageOn(ctx context.Context, base []int64, layers ...int64) (*image, error) {
	l.seeds++
	spec := imageSpec{Repository: fmt.Sprintf("bench/image-%d", l.seeds), Seed: l.seeds, BaseSeed: 1<<31 + l.bases}
	for _, size := range base {
		spec.Base = append(spec.Base, l.size(size))
	}
	for _, size := range layers {
		spec.Layers = append(spec.Layers, l.size(size))
	}
	return l.upstream.addImage(ctx, spec)
}

// images is image, once for each round.
func (l *lab) images(ctx context.Context, layers ...int64) ([]*image, error) {
	images := make([]*image, l.rounds)
	for i := range images {
		var err error
		if images[i], err = l.image(ctx, layers...); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// size scales down what is large.
func (l *lab) size(n int64) int64 {
	if n <= mib {
		return n
	}
	return max(n/l.scale, mib)
}

// lasting scales down how long something goes on.
func (l *lab) lasting(d time.Duration) time.Duration { return d / time.Duration(l.scale) }

// warm has every server hold an image, and checks that each has it right.
func (l *lab) warm(ctx context.Context, servers []*server, img *image) error {
	origin := &server{contender: direct()}
	origin.dress(l, origin)
	for _, s := range servers {
		if s.fixed {
			if err := lay(ctx, origin, s, img); err != nil {
				return err
			}
		}
		if _, err := pull(ctx, s, img, true); err != nil {
			return err
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}
