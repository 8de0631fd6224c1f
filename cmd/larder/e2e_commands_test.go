package main

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/cache"
)

// command runs a larder command on the stack's cache.
func (s *stack) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(s.binary, append(args, "--config", s.config)...)
	cmd.Env = environ(t)
	return cmd
}

// blobFiles lists the blobs that are in the cache.
func (s *stack) blobFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.cache, "blobs", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestScrubFindsThreeFlippedBits(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "scrub/app", Tag: "v1", Seed: 1, Layers: []int64{1 << 20, 8 << 20, 100}})
	requirePull(t, s.newPullers(t, 1), "scrub/app", "v1", image.Root.Digest)
	s.restartLarder(t) // so that all of it is in the cache
	files := s.blobFiles(t)
	if len(files) != 5 { // with the manifest and the config
		t.Fatalf("%d blobs are in the cache", len(files))
	}
	for _, file := range files[:3] {
		if err := flipBit(file); err != nil {
			t.Fatal(err)
		}
	}
	var found cache.ScrubResult
	cmd := s.command(t, "scrub", "--json")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("it ended with status %d, want %d", code, exitFailed)
	}
	if jsonErr := json.Unmarshal(out, &found); jsonErr != nil || found.Mismatches != 3 || found.Blobs != 2 {
		t.Errorf("%s, %v, %v", out, err, jsonErr)
	}
	requirePull(t, s.newPullers(t, 4), "scrub/app", "v1", image.Root.Digest)
	s.restartLarder(t)
	if out := output(t, environ(t), s.binary, "scrub", "--config", s.config); !strings.HasPrefix(out, "5 blobs are correct, 0 were damaged;") {
		t.Errorf("afterwards: %s", out)
	}
}

func TestWatchRunsUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	daemons := t // outlive the subtests
	s := startStack(t)
	for name, c := range map[string]struct {
		args []string
		line *regexp.Regexp
	}{
		"lines": {nil, regexp.MustCompile(`^\d\d:\d\d:\d\d  size [\d.]+ MiB  hits \d+\.\d/s  misses \d+\.\d/s .* fills \d+  evictions \d+\.\d/s$`)},
		"json":  {[]string{"--json"}, regexp.MustCompile(`^\{"time":"[^"]+","bytes":\d+,.*"requests":\{"hit":\d+,.*\}$`)},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := s.command(t, append([]string{"stats", "--watch", "--interval", "100ms"}, c.args...)...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			read := func() {
				for range 2 {
					if !lines.Scan() || !c.line.MatchString(lines.Text()) {
						t.Errorf("%q, %v", lines.Text(), lines.Err())
					}
				}
			}
			read()
			s.restartLarder(daemons)
			read()
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Error(err)
			}
			for lines.Scan() {
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ended with %v, want exit status 0", err)
			}
		})
	}
}
