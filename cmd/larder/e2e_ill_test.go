package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/proxy/admin"
)

// tells returns the text of a page of the admin listener.
func (s *stack) tells(ctx context.Context, t *testing.T, page string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+page, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport(t)}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", page, resp.Status, err)
	}
	return string(body)
}

func TestReadOnlyDiskIsReportedAndBypassedUntilItIsWritable(t *testing.T) {
	t.Parallel()
	requireRoot(t, "mount")
	s := startStack(t)
	dir := s.cache
	kept := s.ecr.add(t, plainImage{Repository: "disk/app", Tag: "kept", Seed: 1, Layers: []int64{1 << 20}})
	requirePull(t, s.newPullers(t, 1), "disk/app", "kept", kept.Root.Digest)
	s.restartLarder(t)
	writable := deploytest.ReadOnly(t, dir)
	for _, tag := range []string{"a", "b", "c"} {
		image := s.ecr.add(t, plainImage{Repository: "disk/app", Tag: tag, Seed: uint64(tag[0]), Layers: []int64{9 << 20, 100}})
		requirePull(t, s.newPullers(t, 2), "disk/app", tag, image.Root.Digest)
	}
	requirePull(t, s.newPullers(t, 1), "disk/app", "kept", kept.Root.Digest)
	if got := s.tells(t.Context(), t, "/readyz"); !strings.Contains(got, "degraded: ") || !strings.Contains(got, "read-only file system") {
		t.Errorf("/readyz says %q", got)
	}
	if metrics := s.tells(t.Context(), t, "/metrics"); !strings.Contains(metrics, "\nlarder_cache_degraded 1\n") {
		t.Errorf("/metrics does not tell: %s", metrics)
	}
	writable()
	s.larder.await(t, func(ctx context.Context) bool { return s.tells(ctx, t, "/readyz") == "ok\n" })
	image := s.ecr.add(t, plainImage{Repository: "disk/app", Tag: "d", Seed: 9, Layers: []int64{9 << 20}})
	requirePull(t, s.newPullers(t, 1), "disk/app", "d", image.Root.Digest)
	for text, times := range map[string]int{"the disk does not accept": 1, "the disk accepts writes again": 1, "level=ERROR": 1} {
		if n := strings.Count(s.larder.logged(), text); n != times {
			t.Errorf("%q is logged %d times, want %d", text, n, times)
		}
	}
	s.restartLarder(t)
	s.ecr.kill()
	requirePull(t, s.newPullers(t, 1), "disk/app", "d", image.Root.Digest)
}

// Another process fills the disk to its last byte.
func TestFullDiskIsReportedAndBypassedUntilThereIsSpace(t *testing.T) {
	t.Parallel()
	disk := deploytest.Tmpfs(t, "size=256m")
	s := startStack(t)
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	s.moveCache(t, filepath.Join(disk, "cache"))
	s.startLarder(t)
	pull := func(tag string) {
		image := s.ecr.add(t, plainImage{Repository: "disk/app", Tag: tag, Seed: uint64(tag[0]), Layers: []int64{9 << 20, 20 << 20, 100}})
		requirePull(t, s.newPullers(t, 4), "disk/app", tag, image.Root.Digest)
	}
	pull("a")
	hog := filepath.Join(disk, "hog")
	fillDisk(t, hog)
	pull("b")
	pull("c")
	s.larder.await(t, func(ctx context.Context) bool { return strings.HasPrefix(s.tells(ctx, t, "/readyz"), "degraded: ") })
	var stats admin.Stats
	text := output(t, environ(t), s.binary, "stats", "--json", "--config", s.config)
	if err := json.Unmarshal([]byte(text), &stats); err != nil || stats.Activity == nil || stats.Activity.Degraded == "" {
		t.Errorf("stats: %s, %v", text, err)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	s.larder.await(t, func(ctx context.Context) bool { return s.tells(ctx, t, "/readyz") == "ok\n" })
	pull("d")
	s.restartLarder(t)
	s.ecr.kill()
	if _, err := s.newPuller(t).pull(t.Context(), "disk/app", "d"); err != nil {
		t.Errorf("what was pulled when there was room again is not in the cache: %v", err)
	}
}
