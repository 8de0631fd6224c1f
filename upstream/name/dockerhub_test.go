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
