package main

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
)

func TestShortNamesAreCompletedAsDockerDoes(t *testing.T) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for short, want := range map[string]string{
		"busybox":                       "docker.io/library/busybox:latest",
		"busybox:1.36":                  "docker.io/library/busybox:1.36",
		"busybox" + digest:              "docker.io/library/busybox" + digest,
		"grafana/grafana:12.0":          "docker.io/grafana/grafana:12.0",
		"docker.io/busybox":             "docker.io/library/busybox:latest",
		"docker.io/grafana/grafana:12":  "docker.io/grafana/grafana:12",
		"public.ecr.aws/nginx/nginx":    "public.ecr.aws/nginx/nginx:latest",
		"localhost/app:v1":              "localhost/app:v1",
		"localhost:5000/app":            "localhost:5000/app:latest",
		"registry.example/app" + digest: "registry.example/app" + digest,
	} {
		if got := fullName(short); got != want {
			t.Errorf("%s: got %s, want %s", short, got, want)
		}
	}
}

func TestVerdictIsToldWithItsRule(t *testing.T) {
	since := time.Now().Add(-73 * time.Hour)
	for _, c := range []struct {
		expired *cache.Expiry
		want    string
	}{
		{nil, "-"},
		{&cache.Expiry{Since: since, Rule: 10, Source: upkeep.SourceECR}, "expired 3 days ago (rule 10)"},
		{&cache.Expiry{Since: since, Rule: 1, Source: upkeep.SourceLocal}, "expired 3 days ago (local rule 1)"},
	} {
		if got := lifecycleOf(cache.ImageInfo{Expired: c.expired}); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
