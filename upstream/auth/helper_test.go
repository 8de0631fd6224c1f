package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// installHelper puts a shell script on the PATH as docker-credential-test. The
// script finds the server in $server, and its output is the answer. The returned
// file has a line for each run.
func installHelper(t *testing.T, script string) (runs string) {
	t.Helper()
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	script = fmt.Sprintf("#!/bin/sh\nread -r server || [ \"$server\" ]\necho \"$1 $server\" >>%s\n%s\n", runs, script)
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return runs
}

func wantRuns(t *testing.T, runs string, want ...string) {
	t.Helper()
	raw, err := os.ReadFile(runs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.TrimSpace(string(raw))); diff != "" {
		t.Errorf("runs of the helper (-want +got):\n%s", diff)
	}
}

func TestConcurrentRequestsShareOneRunOfAHelper(t *testing.T) {
	runs := installHelper(t, `echo '{"Username":"me","Secret":"hunter2"}'`)
	d := newDockerConfig(t, writeFile(t, `{"credsStore":"test"}`), "https://registry.test")
	c := newClient(d, requireBasic("me", "hunter2", content))
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			if err := c.pull(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	wantRuns(t, runs, "get registry.test")
	if account, err := c.Account(t.Context()); err != nil || account.Name != "me" || !strings.HasSuffix(account.Source, " by docker-credential-test") {
		t.Errorf("account: %+v, %v", account, err)
	}
}

// The helper's answer is a file, so that its login can be replaced.
func TestRefusedLoginOfAHelperIsRenewed(t *testing.T) {
	registries := map[string]func(http.HandlerFunc) http.HandlerFunc{
		"basic": func(next http.HandlerFunc) http.HandlerFunc { return requireBasic("me", "new", next) },
		"bearer": func(next http.HandlerFunc) http.HandlerFunc {
			service := requireBasic("me", "new", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"token":"good"}`))
			})
			return func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					service(w, r)
				case r.Header.Get("Authorization") == "Bearer good":
					next(w, r)
				default:
					w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
			}
		},
	}
	for name, registry := range registries {
		t.Run(name, func(t *testing.T) {
			answer := writeFile(t, `{"Username":"me","Secret":"old"}`)
			runs := installHelper(t, "cat "+answer)
			file := writeFile(t, `{"credsStore":"test"}`)
			synctest.Test(t, func(t *testing.T) {
				c := newClient(newDockerConfig(t, file, "https://registry.test"), registry(content))
				wantPermission(t, c.pull(t.Context(), "a")) // the helper has just run, and is not run again
				wantRuns(t, runs, "get registry.test")
				rewriteFile(t, answer, `{"Username":"me","Secret":"new"}`)
				pass(10 * time.Second)
				if err := c.pull(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				wantRuns(t, runs, "get registry.test", "get registry.test")
			})
		})
	}
}

func TestFailedHelperRunsAgainAfterAPause(t *testing.T) {
	runs := installHelper(t, `exit 1`)
	file := writeFile(t, `{"credsStore":"test"}`)
	synctest.Test(t, func(t *testing.T) {
		d := newDockerConfig(t, file, "https://a.example.com")
		for range 3 {
			_, err := d.Login(t.Context())
			upstreamtest.WantNoCredentials(t, err, "docker-credential-test")
		}
		wantRuns(t, runs, "get a.example.com")
		pass(10 * time.Second)
		_, err := d.Login(t.Context())
		upstreamtest.WantNoCredentials(t, err, "docker-credential-test")
		wantRuns(t, runs, "get a.example.com", "get a.example.com")
	})
}

// The caller sets no deadline: the helper's own timeout must end it, also where
// another program keeps its output open.
func TestHelperThatHangsIsEnded(t *testing.T) {
	for name, script := range map[string]string{
		"alone":             `exec sleep 60`,
		"with another":      `sleep 60 & echo $! >"$OTHER"; exec sleep 60`,
		"after it answered": `sleep 60 & echo $! >"$OTHER"; echo '{"Username":"me","Secret":"x"}'`,
	} {
		t.Run(name, func(t *testing.T) {
			pid, other := filepath.Join(t.TempDir(), "pid"), filepath.Join(t.TempDir(), "other")
			t.Setenv("OTHER", other)
			t.Cleanup(func() { kill(t, other) })
			installHelper(t, "echo $$ >"+pid+"\n"+script)
			d := newDockerConfig(t, writeFile(t, `{"credsStore":"test"}`), "https://a.example.com")
			d.SetHelperTimeout(200 * time.Millisecond)
			ended := make(chan error, 1)
			go func() {
				_, err := d.Login(context.Background())
				ended <- err
			}()
			select {
			case err := <-ended:
				upstreamtest.WantNoCredentials(t, err, "docker-credential-test")
			case <-time.After(30 * time.Second): // the scripts run longer
				kill(t, pid)
				kill(t, other)
				t.Errorf("the helper still runs; it ended with %v when it was killed", <-ended)
			}
			if running(t, pid) {
				t.Error("the helper's process is left")
			}
		})
	}
}

// The timeout that the test above shortens is set.
func TestHelperMayRunForTenSeconds(t *testing.T) {
	installHelper(t, `sleep 0.5; echo '{"Username":"me","Secret":"x"}'`)
	d := newDockerConfig(t, writeFile(t, `{"credsStore":"test"}`), "https://a.example.com")
	if d.HelperTimeout() != 10*time.Second {
		t.Errorf("a helper is ended after %v, want 10s", d.HelperTimeout())
	}
	if l, err := d.Login(t.Context()); err != nil || l != (auth.Login{Username: "me", Password: "x"}) {
		t.Errorf("a slow helper: %v", err)
	}
}

// processOf returns the number that a script wrote, or 0 if it wrote none.
func processOf(t *testing.T, file string) int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func running(t *testing.T, file string) bool {
	t.Helper()
	pid := processOf(t, file)
	return pid > 0 && syscall.Kill(pid, 0) == nil
}

func kill(t *testing.T, file string) {
	t.Helper()
	if pid := processOf(t, file); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}
