package name_test

import (
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

func TestDockerHubHasThreeHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"docker.io":            true,
		"index.docker.io":      true,
		"registry-1.docker.io": true,
		"hub.docker.com":       false,
		"x.docker.io":          false,
		"docker.io:443":        false,
		"":                     false,
	} {
		if got := name.IsDockerHub(host); got != want {
			t.Errorf("IsDockerHub(%q) = %t", host, got)
		}
	}
}

func TestOneElementIsAnOfficialImageOnDockerHubOnly(t *testing.T) {
	for _, test := range []struct{ host, repository, want string }{
		{"docker.io", "busybox", "library/busybox"},
		{"docker.io", "grafana/grafana", "grafana/grafana"},
		{"ghcr.io", "busybox", "busybox"},
	} {
		if got := name.CompleteRepository(test.host, test.repository); got != test.want {
			t.Errorf("%s at %s is completed to %s, want %s", test.repository, test.host, got, test.want)
		}
	}
}

func TestRegistryHasOneHost(t *testing.T) {
	for host, want := range map[string]string{
		"docker.io":                "docker.io",
		"Index.Docker.io":          "docker.io",
		"registry-1.docker.io":     "docker.io",
		"registry-1.docker.io:443": "docker.io",
		"docker.io:443":            "docker.io",
		"docker.io:5000":           "docker.io:5000",
		"hub.docker.com":           "hub.docker.com",
		"GHCR.io:443":              "ghcr.io",
		"ghcr.io:4443":             "ghcr.io:4443",
		"ghcr.io:80":               "ghcr.io:80",
		"[::1]:443":                "[::1]",
		"10.0.0.1:443":             "10.0.0.1",
		"ghcr.io:0443":             "",
		"ghcr.io/":                 "",
	} {
		if got, ok := name.ParseRegistry(host); got != want || ok != (want != "") {
			t.Errorf("ParseRegistry(%q) = %q, %t; want %q", host, got, ok, want)
		}
	}
	for pattern, want := range map[string]name.HostPattern{
		"*.example.com:443":    "*.example.com",
		"registry-1.docker.io": "docker.io",
	} {
		if got, ok := name.ParseHostPattern(pattern); got != want || !ok {
			t.Errorf("ParseHostPattern(%q) = %q, %t; want %q", pattern, got, ok, want)
		}
	}
}

func TestImagesOfOneRegistryHaveOneName(t *testing.T) {
	for image, want := range map[string]string{
		"index.docker.io/library/busybox:1": "docker.io/library/busybox:1",
		"registry-1.docker.io/busybox:1":    "docker.io/library/busybox:1",
		"ghcr.io:443/org/app:1":             "ghcr.io/org/app:1",
	} {
		if got, err := name.ParseShortImage(image); err != nil || got.String() != want {
			t.Errorf("ParseShortImage(%q) = %v, %v; want %s", image, got, err, want)
		}
	}
	for pattern, want := range map[string]name.ImagePattern{
		"index.docker.io/library/*": "docker.io/library/*",
		"GHCR.io:443/org/app:v*":    "ghcr.io/org/app:v*",
		"*/team/*:v1*":              "*/team/*:v1*",
		"team/app":                  "team/app",
		"[a-z]*.io/x:1":             "[a-z]*.io/x:1",
	} {
		if got, err := name.ParseImagePattern(pattern); err != nil || got != want {
			t.Errorf("ParseImagePattern(%q) = %q, %v; want %q", pattern, got, err, want)
		}
	}
}
