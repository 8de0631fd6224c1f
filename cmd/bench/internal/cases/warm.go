package cases

import (
	"context"
	"errors"
	"os/exec"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// warmLarge is pulls of a large image that every server stores.
func warmLarge() *lab.Case {
	const clients, times = 4, 3
	return &lab.Case{
		Case: report.Case{
			Name:     "warm",
			About:    "4 clients pull a warm image of 446 MB three times each",
			Headline: []report.Metric{report.Wall, report.CPUPerGB},
		},
		Prepare: warmPulls(large, clients, times),
	}
}

// warmPulls returns the Prepare of pulls of an image that every server stores.
func warmPulls(layers []int64, clients, times int) func(context.Context, *lab.Setup, []*server.Server) (lab.Turn, error) {
	return func(ctx context.Context, setup *lab.Setup, servers []*server.Server) (lab.Turn, error) {
		img, err := setup.Image(ctx, layers...)
		if err != nil {
			return nil, err
		}
		if err := setup.Warm(ctx, servers, img); err != nil {
			return nil, err
		}
		return func(ctx context.Context, s *server.Server, _ int) (*lab.Outcome, error) {
			served, took, err := load.PullAll(ctx, s.Target(), img, clients, times, false)
			return &lab.Outcome{Served: served, Measures: report.Measures{report.Wall: took.Seconds()}}, err
		}, nil
	}
}

// How long small requests are sent, and in how many of them a server's work is counted. Counted requests are many, so
// that asking for the count does not show. Under strace a request takes a millisecond.
const (
	floodLasts         = 3 * time.Second
	minFloodLasts      = time.Second // wrk counts whole seconds
	countedAllocations = 20_000
	countedSystemCalls = 2_000
)

// warmSmall is small requests for something that every server stores.
func warmSmall(name, about string, request func(*upstream.Image) load.Request, skip map[string]string) *lab.Case {
	return &lab.Case{
		Case: report.Case{
			Name:     name,
			About:    about,
			Headline: []report.Metric{report.Rate, report.CPUPerRequest, report.Allocations, report.SystemCalls},
			Skip:     skip,
		},
		Prepare: func(ctx context.Context, setup *lab.Setup, servers []*server.Server) (lab.Turn, error) {
			img, err := setup.Image(ctx, smaller(large, 64)...)
			if err != nil {
				return nil, err
			}
			if err := setup.Warm(ctx, servers, img); err != nil {
				return nil, err
			}
			r := request(img)
			return func(ctx context.Context, s *server.Server, round int) (*lab.Outcome, error) {
				requests, took, err := load.Flood(ctx, s.Target(), r, max(setup.ScaleTime(floodLasts), minFloodLasts))
				if err != nil {
					return nil, err
				}
				out := &lab.Outcome{Requests: requests, Measures: report.Measures{report.Rate: float64(requests) / took.Seconds()}}
				if round > 0 {
					return out, nil
				}
				return out, errors.Join(countAllocations(ctx, setup, s, r, out.Measures), countSystemCalls(ctx, setup, s, r, out.Measures))
			}, nil
		},
	}
}

// countAllocations adds how many objects the server allocates for a request, if it publishes that.
func countAllocations(ctx context.Context, setup *lab.Setup, s *server.Server, r load.Request, to report.Measures) error {
	times := setup.ScaleCount(countedAllocations)
	n, err := s.Allocations(ctx, func() error { return load.Repeat(ctx, s.Target(), r, times) })
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		return err
	}
	to[report.Allocations] = n / float64(times)
	return nil
}

// countSystemCalls adds how many system calls the server makes for a request, if strace is installed.
func countSystemCalls(ctx context.Context, setup *lab.Setup, s *server.Server, r load.Request, to report.Measures) error {
	times := setup.ScaleCount(countedSystemCalls)
	n, err := s.SystemCalls(ctx, func() error { return load.Repeat(ctx, s.Target(), r, times) })
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	to[report.SystemCalls] = float64(n) / float64(times)
	return nil
}
