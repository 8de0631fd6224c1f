package carry_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring/bringtest"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
)

// What was planned is kept only while a command runs. Here it is evicted before the next one, and the tag has moved.
func TestInterruptedExportFetchesWhatWasEvictedMeanwhile(t *testing.T) {
	s := bringtest.New(t, cache.Options{})
	added := s.AddImage("v1", "a", 100_000, "linux/amd64", "linux/arm64")
	s.AddImage("v2", "b", 1000, "linux/amd64")
	bringer := bring.New(s.Proxy, s.Store, slog.New(slog.DiscardHandler))
	alone := carry.Options{Store: s.Store, Log: slog.New(slog.DiscardHandler)}
	daemon := alone
	daemon.Bringer, daemon.FetchReferrers = bringer, s.Proxy.FetchReferrers
	first := exported(t, carry.New(daemon), carry.ExportRequest{
		Images: []string{bringtest.Name("v1").String(), bringtest.Name("v2").String()}, Platforms: []string{"linux/amd64"},
	})
	contents, err := s.Store.Digests()
	if err != nil || first.Error != "" || len(contents) < 7 {
		t.Fatalf("%+v, %v, %v", first, contents, err)
	}
	req := carry.ExportRequest{Contents: contents, Planned: first.Images}
	evict := func() {
		t.Helper()
		if freed, err := s.Store.Remove(bringtest.Repo(), added.Root.Digest.String()); err != nil || freed < 100_000 {
			t.Fatalf("evicted %d bytes: %v", freed, err)
		}
	}
	again := func(opts carry.Options) string { return exported(t, carry.New(opts), req).Error }

	s.AddImage("v1", "moved", 1000, "linux/amd64")
	evict()
	if got := again(alone); !strings.Contains(got, "the daemon") || !strings.Contains(got, "the same command goes on") {
		t.Errorf("without a daemon: %q", got)
	}
	s.SetDown(true)
	if got := again(daemon); !strings.Contains(got, "the link is down") || !strings.Contains(got, "the same command goes on") {
		t.Errorf("without the registry: %q", got)
	}
	s.SetDown(false)
	if got := again(daemon); got != "" {
		t.Errorf("with the registry: %s", got)
	}
	for _, d := range contents {
		if _, err := s.Store.Stat(d); err != nil {
			t.Errorf("%s is missing: %v", d, err)
		}
	}
	if _, err := s.Store.Stat(added.Manifests[1].Digest); err == nil {
		t.Error("a platform that was not planned was fetched")
	}
	sent, _, _ := s.Counts()
	if got := again(daemon); got != "" {
		t.Error(got)
	}
	if now, _, _ := s.Counts(); now != sent {
		t.Errorf("%d bytes of what is here were fetched again", now-sent)
	}
}
