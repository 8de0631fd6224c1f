package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
)

// options are the settings of a tour.
type options struct {
	flags
	unit  int64 // bytes; the sizes of the images are multiples of it
	steps []step
}

// A step shows one thing that Larder does. Its error says that Larder did not.
type step struct {
	title string
	show  func(context.Context, *stage) (shown, error)
}

// shown is what a step reports when it held.
type shown struct {
	took time.Duration
	note string
}

// conduct gives the whole tour. The error is nil if every step held.
func conduct(ctx context.Context, opts options, stdout, stderr io.Writer) (err error) {
	s, err := openStage(ctx, opts, stdout, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	fmt.Fprintf(stdout, "A tour of Larder: a fake ECR, Larder in front of it, and real pulls through both.\n\n")
	fmt.Fprintf(stdout, "    upstream  %s\n              which is %s here\n", s.ecr.Host(), s.ecr.Endpoint)
	fmt.Fprintf(stdout, "    larder    http://%s\n    cache     %s\n\n", s.larder.addr, s.larder.cfg.Cache.Dir)
	fmt.Fprintf(stdout, "%-50s %8s  %13s\n", "", "time", "upstream sent")

	started, failed := time.Now(), 0
	for i, step := range opts.steps {
		s.ecr.ResetStats()
		got, err := step.show(ctx, s)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		mark, took := "✓", rounded(got.took).String()
		if err != nil {
			mark, took, got.note = "✗", "-", err.Error()
			failed++
		}
		fmt.Fprintf(stdout, "%s %d  %-45s %8s  %13s\n     %s\n\n",
			mark, i+1, step.title, took, size(s.ecr.Stats().Bytes()), got.note)
	}
	if failed == 0 {
		fmt.Fprintf(stdout, "All %d steps held, in %v.", len(opts.steps), rounded(time.Since(started)))
		if !opts.Keep {
			fmt.Fprint(stdout, " With --keep everything stays, to pull from with containerd, podman or curl.")
		}
		fmt.Fprintln(stdout)
	}
	if opts.Keep {
		if err := keep(ctx, s); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps failed", failed, len(opts.steps))
	}
	return nil
}

// size and rate are for people to read.
func size(bytes int64) string { return humanize.Bytes(uint64(bytes)) }

func rate(bytes int64, d time.Duration) string {
	return size(int64(float64(bytes)/d.Seconds())) + "/s"
}

// rounded leaves about three digits.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
