package load

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

// Connections is how many connections Flood uses.
const Connections = 16

// Flood sends one small request as often as it can for some time, and returns how often it did and how long it took. It
// uses wrk, or its own clients where wrk is not installed, and for HEAD, whose responses wrk cannot read.
func Flood(ctx context.Context, t Target, r Request, lasts time.Duration) (requests int64, took time.Duration, err error) {
	if _, err := exec.LookPath("wrk"); err == nil && r.Method == "" {
		return floodWithWrk(ctx, t, r, lasts)
	}
	return floodWithClients(ctx, t, r, lasts)
}

func floodWithClients(ctx context.Context, t Target, r Request, lasts time.Duration) (int64, time.Duration, error) {
	var requests atomic.Int64
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range Connections {
		group.Go(func() error {
			n, err := repeat(ctx, t, r, func(int) bool { return time.Since(began) < lasts })
			requests.Add(int64(n))
			return err
		})
	}
	err := group.Wait()
	return requests.Load(), time.Since(began), err
}

// Repeat sends a request a number of times on one connection.
func Repeat(ctx context.Context, t Target, r Request, times int) error {
	_, err := repeat(ctx, t, r, func(done int) bool { return done < times })
	return err
}

// repeat sends a request on one connection until more returns false, and returns how often it did.
func repeat(ctx context.Context, t Target, r Request, more func(done int) bool) (done int, err error) {
	c := NewClient(ctx)
	defer c.Close()
	for more(done) {
		resp, err := c.Do(t, r)
		if err != nil {
			return done, err
		}
		n, err := resp.Discard()
		switch {
		case err != nil:
			return done, err
		case r.Method != http.MethodHead && n == 0:
			return done, errors.New("an empty response")
		}
		done++
	}
	return done, nil
}

func floodWithWrk(ctx context.Context, t Target, r Request, lasts time.Duration) (int64, time.Duration, error) {
	cmd := exec.CommandContext(ctx, "wrk", "--threads", "1", "--connections", strconv.Itoa(Connections),
		"--header", "Accept: "+accept, "--duration", strconv.Itoa(int(lasts.Seconds()))+"s", "http://"+t.Addr+r.Path+t.Query)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	requests, took, err := parseWrk(out)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", cmd, err)
	}
	return requests, took, nil
}

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in ([\d.]+)(ms|s|m),`)
	wrkFailed = regexp.MustCompile(`(?m)Socket errors.*|Non-2xx.*`)
)

// parseWrk reads the number of requests and the time from wrk's output. Failed requests are an error.
func parseWrk(out []byte) (int64, time.Duration, error) {
	if failed := wrkFailed.Find(out); failed != nil {
		return 0, 0, errors.New(string(failed))
	}
	found := wrkTotal.FindSubmatch(out)
	if found == nil {
		return 0, 0, fmt.Errorf("no total in its output:\n%s", out)
	}
	requests, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0, 0, err
	}
	took, err := time.ParseDuration(string(found[2]) + string(found[3]))
	return requests, took, err
}
