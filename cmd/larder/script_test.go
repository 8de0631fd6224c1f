package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// TestScripts runs the command line's scripts. $LISTEN and $ADMIN are addresses that nothing listens on yet.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("LARDER_CONFIG", "") // the machine's own is not used
			for _, name := range []string{"LISTEN", "ADMIN"} {
				env.Setenv(name, deploytest.FreeAddress(t))
			}
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition != "root" {
				return false, fmt.Errorf("%q is not a condition of these scripts", condition)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"damage":   damage,
			"edit":     edit,
			"keys":     makeKeys,
			"exits":    exits,
			"pull":     pullTag,
			"ready":    ready,
			"upstream": provideUpstream,
		},
	})
}

// exits runs a command and asks for its exit status: "exits 2 larder --nonsense".
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits status command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var status *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &status) {
		got = status.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("it exits with %d, want %d", got, want)
	}
}

// ready waits until a daemon in the background serves on $ADMIN, and /readyz matches the pattern if there is
// one: "ready '^ok$'".
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: ready [pattern]")
	}
	pattern := regexp.MustCompile(strings.Join(args, ""))
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ts.Getenv("ADMIN")+"/readyz", nil)
	ts.Check(err)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		resp, err := client.Do(req)
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			ts.Check(errors.Join(err, resp.Body.Close()))
			if resp.StatusCode == http.StatusOK && pattern.Match(bytes.TrimSpace(body)) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("no daemon was ready within %v %s", readyTimeout, pattern)
		}
	}
}
