package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// flood asks a server for one small thing as often as it can: with wrk, or where that is missing, or for HEAD whose
// answers wrk cannot read, with connections of our own.
func (l *lab) flood(ctx context.Context, s *server, q question) (*outcome, error) {
	lasts := max(l.lasting(smallLasts), time.Second)
	by := floodByHand
	if _, err := exec.LookPath("wrk"); err == nil && q.method == "" {
		by = floodWithWrk
	}
	asked, took, err := by(ctx, s, q, lasts)
	if err != nil {
		return nil, err
	}
	return &outcome{asked: asked, measures: measures{rate: float64(asked) / took.Seconds()}}, nil
}

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in ([\d.]+)(ms|s|m),`)
	wrkFailed = regexp.MustCompile(`(?m)Socket errors.*|Non-2xx.*`)
)

func floodWithWrk(ctx context.Context, s *server, q question, lasts time.Duration) (int64, time.Duration, error) {
	cmd := exec.CommandContext(ctx, "wrk", "--threads", "1", "--connections", strconv.Itoa(smallConnections),
		"--header", "Accept: "+accept, "--duration", strconv.Itoa(int(lasts.Seconds()))+"s", "http://"+s.addr+q.path+s.query)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	if failed := wrkFailed.Find(out); failed != nil {
		return 0, 0, fmt.Errorf("%s: %s", cmd, failed)
	}
	found := wrkTotal.FindSubmatch(out)
	if found == nil {
		return 0, 0, fmt.Errorf("%s: cannot read what it says:\n%s", cmd, out)
	}
	asked, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0, 0, err
	}
	took, err := time.ParseDuration(string(found[2]) + string(found[3]))
	return asked, took, err
}

func floodByHand(ctx context.Context, s *server, q question, lasts time.Duration) (int64, time.Duration, error) {
	var asked atomic.Int64
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range smallConnections {
		group.Go(func() error {
			n, err := askFor(ctx, s, q, func(int) bool { return time.Since(began) < lasts })
			asked.Add(int64(n))
			return err
		})
	}
	err := group.Wait()
	return asked.Load(), time.Since(began), err
}

// askFor puts a question over and over on one connection, while more says so. It returns how often it did.
func askFor(ctx context.Context, s *server, q question, more func(asked int) bool) (asked int, err error) {
	c := newClient(ctx)
	defer c.close()
	for more(asked) {
		a, err := c.ask(s, q)
		if err != nil {
			return asked, err
		}
		n, err := a.drain()
		switch {
		case err != nil:
			return asked, err
		case q.method != http.MethodHead && n == 0:
			return asked, errors.New("an empty answer")
		}
		asked++
	}
	return asked, nil
}
