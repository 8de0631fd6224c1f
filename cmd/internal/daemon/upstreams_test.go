package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr"
)

func TestLookupTranslatesEveryKey(t *testing.T) {
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	file := filepath.Join(t.TempDir(), "larder.yaml")
	err := os.WriteFile(file, []byte(`
upstreams:
  - host: 123456789012.dkr.ecr.eu-west-1.amazonaws.com
    endpoint: https://registry.example.com
    timeout: 7s
    ecr:
      api_endpoint: https://api.example.com
      profile: edge
      role_arn: arn:aws:iam::123456789012:role/pull
      external_id: cluster-7
      session_name: node-3
      replicas: [us-east-1]
      pull_through: [docker-hub]
  - host: registry.example.com
    auth: {username: someone, password_file: /run/password}
  - host: other.example.com
    ecr: {region: eu-central-1}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []upstream.Config{
		{
			Host: host, Name: host, Endpoint: "https://registry.example.com", Timeout: 7 * time.Second,
			ECR: upstream.ECRConfig{
				APIEndpoint: "https://api.example.com",
				Identity: ecr.Identity{
					Profile: "edge", RoleARN: "arn:aws:iam::123456789012:role/pull", ExternalID: "cluster-7", SessionName: "node-3",
				},
				Replicas:    []string{"123456789012.dkr.ecr.us-east-1.amazonaws.com"},
				PullThrough: []string{"docker-hub"},
			},
		},
		{
			Host: "registry.example.com", Name: "registry.example.com", Endpoint: "https://registry.example.com", Timeout: 20 * time.Second,
			Username: "someone", PasswordFile: "/run/password",
		},
		{
			Host: "other.example.com", Name: "other.example.com", Endpoint: "https://other.example.com", Timeout: 20 * time.Second,
			ECR: upstream.ECRConfig{Region: "eu-central-1"},
		},
	} {
		got, ok := Lookup(cfg)(want.Host)
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("%s: %t (-want +got):\n%s", want.Host, ok, diff)
		}
	}
	if _, ok := Lookup(cfg)("elsewhere.example.com"); ok {
		t.Error("a host that is not configured may be asked")
	}
}

// The configuration is that of deploy/docs. Without any the same hosts are served, all of
// them by one identity.
func TestThreeAccountsInTwoRegionsNeedTenLinesOfConfiguration(t *testing.T) {
	const file = repository + "/config/testdata/accounts.yaml"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("\n")); n > 10 {
		t.Errorf("it has %d lines", n)
	}
	role := ecr.Identity{RoleARN: "arn:aws:iam::333333333333:role/pull-for-us", ExternalID: "cluster-7"}
	for file, identities := range map[string]map[string]ecr.Identity{
		file: {"111111111111": {}, "222222222222": {}, "333333333333": role, "": {}},
		"":   {"111111111111": {}, "222222222222": {}, "333333333333": {}, "": {}},
	} {
		cfg, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		client := upstream.NewClient(upstream.Options{Lookup: Lookup(cfg)})
		for account, identity := range identities {
			hosts := []string{account + ".dkr.ecr.us-east-1.amazonaws.com", account + ".dkr.ecr.eu-central-1.amazonaws.com"}
			if account == "" {
				hosts = []string{"public.ecr.aws"}
			}
			for _, host := range hosts {
				got, ok := Lookup(cfg)(host)
				if !ok || got.Endpoint != "https://"+host || got.ECR.Identity != identity {
					t.Errorf("%q: %s: %t, %+v, want the identity %+v", file, host, ok, got, identity)
				}
				registry, err := client.Registry(host)
				if err != nil || (registry.ECR() != nil) != (account != "") {
					t.Errorf("%q: %s: %v", file, host, err)
				}
			}
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Metrics keep every name that they were told, and a pattern may match any number of hosts.
func TestMetricsNameHostsOfAPatternByThePattern(t *testing.T) {
	cfg, err := config.Load("")
	if err != nil {
		t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{Lookup: Lookup(cfg)})
	defer client.Close()
	names := make(map[string]bool)
	for _, account := range []string{"111111111111", "222222222222"} {
		host := account + ".dkr.ecr.us-east-1.amazonaws.com"
		entry, _ := Lookup(cfg)(host)
		source, err := sources(cfg, client)(host, "team/app")
		if err != nil || source.Name != entry.Name {
			t.Errorf("%s: requests of clients are counted by %q, those to it by %q", host, source.Name, entry.Name)
		}
		names[source.Name] = true
	}
	if len(names) != 1 || names["111111111111.dkr.ecr.us-east-1.amazonaws.com"] {
		t.Errorf("two hosts of one pattern are %v", names)
	}
}
