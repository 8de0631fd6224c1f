package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

func TestReplicaOfARegionHasTheSameFormOfName(t *testing.T) {
	for host, want := range map[string][]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":      {"123456789012.dkr.ecr.us-west-2.amazonaws.com", "mirror.example.com"},
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com": {"123456789012.dkr.ecr-fips.us-west-2.amazonaws.com", "mirror.example.com"},
		"123456789012.dkr-ecr.us-east-1.on.aws":             {"123456789012.dkr-ecr.us-west-2.on.aws", "mirror.example.com"},
		"123456789012.dkr.ecr.us-west-2.amazonaws.com":      {"mirror.example.com"}, // that would be itself
		"registry.example.com":                              {"mirror.example.com"},
	} {
		u := config.Upstream{Host: name.HostPattern(host), ECR: &config.ECR{Replicas: []string{"us-west-2", "mirror.example.com"}}}
		if diff := cmp.Diff(want, u.ReplicaHosts(host)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", host, diff)
		}
	}
	if got := new(config.Upstream).ReplicaHosts("docker.io"); got != nil {
		t.Errorf("without ecr: %v", got)
	}
}

func TestReplicaOfAPatternDependsOnTheHost(t *testing.T) {
	c := &config.Config{Upstreams: []config.Upstream{{Host: "*.dkr.ecr.*.amazonaws.com", ECR: &config.ECR{Replicas: []string{"eu-west-1"}}}}}
	host := "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	u, ok := c.Match(host)
	if !ok {
		t.Fatal("no upstream")
	}
	if diff := cmp.Diff([]string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com"}, u.ReplicaHosts(host)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
