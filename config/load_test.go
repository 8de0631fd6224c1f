package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/name"
)

// load returns the configuration in a file of testdata, or without a file if name is
// "". A mistake ends the test.
func load(t *testing.T, name string, overrides ...config.Override) *config.Config {
	t.Helper()
	if name != "" {
		name = filepath.Join("testdata", name)
	}
	c, err := config.Load(name, overrides...)
	if err != nil {
		t.Fatalf("Load:\n%v", err)
	}
	return c
}

// write returns the path of a new file with this text.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "larder.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// testdata returns the absolute path of a file in testdata.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// comparePolicies compares what the rules say.
var comparePolicies = cmp.Comparer(func(a, b lifecycle.Policy) bool { return reflect.DeepEqual(a, b) })

func policy(t *testing.T, text string) lifecycle.Policy {
	t.Helper()
	p, err := lifecycle.ParseLocal([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func endpointOf(host string) string {
	if host == "docker.io" {
		return "https://registry-1.docker.io"
	}
	return "https://" + host
}

func TestEveryKeyIsLoaded(t *testing.T) {
	want := &config.Config{
		Listen: "0.0.0.0:5500",
		Admin:  "",
		Names:  []string{"cache.example.internal", "192.0.2.7", "fd00::7"},
		TLS:    config.TLS{Cert: testdata(t, "tls/server.crt"), Key: testdata(t, "tls/server.key"), ClientCA: testdata(t, "tls/clients.crt")},
		Cache: config.Cache{
			Dir: testdata(t, "cache"), MaxSize: config.Amount{Percent: 62.5}, MinFree: config.Amount{Bytes: 1536 << 20}, LowWater: 0.75,
			Pin: []name.ImagePattern{"*/team/*:v1*", "docker.io/library/busybox:1.36"}, PinAllPlatforms: true,
			VerifyOnRead: "first", ScrubEvery: 24 * time.Hour, ScrubRate: config.Amount{Bytes: 50_000_000},
		},
		Tags:   config.Tags{TTL: 30 * time.Second, StaleIfError: 168 * time.Hour, StaleIfGone: 24 * time.Hour, NegativeTTL: 0, Immutable: []name.ImagePattern{"*:v*", "docker.io/library/busybox:1.36"}, Cooldown: []config.Cooldown{{Match: "docker.io/*", For: 72 * time.Hour, First: "wait"}, {Match: "*/team/*", For: time.Hour, First: "serve"}}},
		Link:   config.Link{Rate: 2_000_000, Background: config.LinkBackground{Rate: 500_000, Hours: config.Hours{From: 22 * 60, To: 5 * 60}}},
		Import: config.Import{Verify: []string{testdata(t, "keys/site.pub"), "awskms:///alias/site"}},
		Audit:  config.Audit{File: "/var/log/larder/audit.json", Required: true},
		Peers:  config.Peers{Listen: "10.0.3.7:5502", Advertise: "10.0.3.7", Join: []string{"larder-peers.larder-system.svc:5503", "10.0.3.8:5003"}, KeyFile: "/etc/larder-keys/peers.key", Zone: "us-east-1a", Span: config.SpanCluster, Upload: 100_000_000},
		Shared: config.Shared{
			S3: config.S3{
				Bucket: "larder-images", Prefix: "prod/eu", Region: "eu-central-1", Endpoint: "https://minio.example.internal:9000",
				PathStyle: true, Write: true, Rate: 20_000_000,
			},
			KeyFile: "/etc/larder-keys/shared.key",
		},
		Access:          config.Access{Recheck: 30 * time.Minute, Offline: 24 * time.Hour, KeyFile: "/etc/larder-keys/access.key", Realm: "https://cache.example.internal:5000"},
		DefaultUpstream: "registry.example.com:5000",
		Upstreams: []config.Upstream{
			{
				Host:     "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
				Endpoint: "https://ecr.proxy.example.com/private",
				Timeout:  90 * time.Second,
				Access:   "node",
				Offline:  true,
				ECR: &config.ECR{
					APIEndpoint: "https://vpce-0123.api.ecr.eu-central-1.vpce.amazonaws.com",
					Region:      "eu-central-1",
					Profile:     "images",
					RoleARN:     "arn:aws:iam::123456789012:role/team/puller",
					ExternalID:  "0815",
					SessionName: "edge-7",
					Lifecycle:   "off",
					Replicas:    []string{"eu-west-1", "images.example.com"},
					PullThrough: []string{"docker-hub", "mirrors/quay"},
					KeepAlive:   72 * time.Hour,
				},
				Allow: []name.RepositoryPattern{"team/*", "base"},
			},
			{
				Host:     "images.example.com",
				Endpoint: "https://images.example.com",
				Timeout:  20 * time.Second,
				Access:   "node",
				ECR:      &config.ECR{Region: "us-west-2", Lifecycle: "hint", ImmutableTags: true, KeepAlive: 24 * time.Hour},
			},
			{
				Host:     "registry.example.com:5000",
				Endpoint: "http://127.0.0.1:5001",
				Timeout:  20 * time.Second,
				Access:   "node",
				Auth:     config.Auth{Username: "reader", PasswordFile: testdata(t, "secrets/registry"), Realms: []string{"auth.example.org", "auth.example.net:8443"}},
			},
			{
				Host:    "*.mirror.example.com",
				Timeout: 20 * time.Second,
				Access:  "node",
				Auth:    config.Auth{DockerConfig: testdata(t, "secrets/config.json")},
			},
			{Host: "docker.io", Endpoint: "https://registry-1.docker.io", Timeout: 20 * time.Second, Access: "node"},
		},
		Keep: []config.Keep{
			{
				Images: []name.Image{
					{Host: "docker.io", Repository: "library/redis", Tag: "7"},
					{Host: "registry.example.com:5000", Repository: "team/app", Tag: "v1"},
				},
				File: testdata(t, "images.txt"), Platforms: []string{"linux/arm64", "all"}, Every: time.Hour, Switch: "at_once", Referrers: true,
			},
			{
				Images: []name.Image{{Host: "docker.io", Repository: "library/busybox", Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
				Every:  6 * time.Hour, Switch: "whole",
			},
		},
		Policy: []config.Policy{
			{Match: name.Pattern{Host: "images.example.com", Repository: "base/*"}, Mode: "enforce", Age: 72 * time.Hour, Offline: 168 * time.Hour, Findings: &config.Findings{Worst: "high", OnlyFixable: true, Unscanned: "allow"}, Signed: &config.Signed{
				Notation: &config.Notation{TrustPolicy: testdata(t, "policy/trustpolicy.json"), TrustStore: testdata(t, "policy/truststore")},
				Cosign: &config.Cosign{
					Keys: []string{testdata(t, "policy/cosign.pub"), "awskms:///alias/cosign"}, TrustedRoot: testdata(t, "policy/trusted_root.json"),
					Identities: []config.Identity{{Issuer: "https://token.actions.githubusercontent.com", Subject: "https://github.com/team/app/.github/workflows/build.yaml@refs/heads/main"}},
				},
			}},
			{Match: name.Pattern{Host: "images.example.com", Repository: "*"}, Mode: "warn", Age: time.Hour, Offline: 720 * time.Hour},
		},
		Lifecycle: []config.LocalRules{
			{Match: name.Pattern{Host: "docker.io", Repository: "library/*"}, Policy: policy(t, `{"rules":[`+
				`{"rulePriority":1,"description":"yes","selection":{"tagStatus":"tagged","tagPatternList":["v*","2026-01-01","yes"],`+
				`"countType":"imageCountMoreThan","countNumber":16},"action":{"type":"expire"}},`+
				`{"rulePriority":2,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30},`+
				`"action":{"type":"expire"}}]}`)},
			{Match: name.Pattern{Host: name.AnyHost, Repository: "*"}, Policy: policy(t, `{"rules":[`+
				`{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":5},`+
				`"action":{"type":"expire"}}]}`)},
		},
		Log:       config.Log{Level: slog.LevelDebug, Format: "json"},
		Telemetry: config.Telemetry{OTLPEndpoint: "http://collector.monitoring:4318", SampleRatio: 1, RepositoryLabel: true},
	}
	if diff := cmp.Diff(want, load(t, "full.yaml"), comparePolicies, cmpopts.IgnoreFields(config.Config{}, "Warnings")); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestNodeExampleIsValid(t *testing.T) {
	c := load(t, "node.yaml")
	if c.DefaultUpstream != "docker.io" || c.Listen != "127.0.0.1:5000" {
		t.Errorf("default upstream %q, listen %s", c.DefaultUpstream, c.Listen)
	}
	own, _ := c.Match("123456789012.dkr.ecr.us-east-1.amazonaws.com")
	addons, _ := c.Match("602401143452.dkr.ecr.us-east-1.amazonaws.com")
	if !own.Allows("team/app") || addons.Allows("team/app") || !addons.Allows("eks/coredns") {
		t.Error("the repositories of the account and of the add-ons are confused")
	}
}

func TestNoFileIsAWorkingConfiguration(t *testing.T) {
	c := load(t, "")
	upstreams := c.Upstreams
	c.Upstreams = nil
	c.Cache.Dir = ""      // TestCacheDirIsTheUsersUnlessRoot
	c.Access.KeyFile = "" // TestAccessKeyIsOutsideOfTheCache
	want := &config.Config{
		Listen:          "127.0.0.1:5000",
		Admin:           "127.0.0.1:5001",
		Cache:           config.Cache{MaxSize: config.Amount{Bytes: 50 << 30}, MinFree: config.Amount{Percent: 5}, LowWater: 0.9, VerifyOnRead: "never", ScrubEvery: 168 * time.Hour, ScrubRate: config.Amount{Bytes: 20_000_000}},
		Peers:           config.Peers{Listen: "0.0.0.0:5002", Span: config.SpanZone, Upload: 200_000_000},
		Shared:          config.Shared{S3: config.S3{Rate: 50_000_000}},
		Tags:            config.Tags{TTL: time.Minute, StaleIfError: 720 * time.Hour, NegativeTTL: 10 * time.Second},
		Access:          config.Access{Recheck: time.Hour, Offline: 720 * time.Hour},
		DefaultUpstream: "docker.io",
		Log:             config.Log{Level: slog.LevelInfo, Format: "text"},
		Telemetry:       config.Telemetry{SampleRatio: 0.05},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	c.Upstreams = upstreams
	for _, host := range []string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com",
		"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
		"123456789012.dkr-ecr.eu-west-1.on.aws",
		"123456789012.dkr-ecr-fips.us-west-2.on.aws",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
		"123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn",
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
		"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
		"public.ecr.aws",
		"ecr-public.aws.com",
		"docker.io",
	} {
		u, ok := c.Match(host)
		if !ok || u.Endpoint != endpointOf(host) || u.Timeout != 20*time.Second {
			t.Errorf("Match(%q) = %+v, %t", host, u, ok)
		}
	}
	for _, host := range []string{"quay.io", "s3.us-east-1.amazonaws.com", "169.254.169.254", "localhost"} {
		if u, ok := c.Match(host); ok {
			t.Errorf("Match(%q) = %+v, want none", host, u)
		}
	}
}

func TestFileWithoutKeysGivesTheDefaults(t *testing.T) {
	want := load(t, "")
	for name, text := range map[string]string{
		"empty":          "",
		"comments":       "# listen: 127.0.0.1:6000\n",
		"empty document": "---\n",
		"empty keys":     "cache:\ntags: # ttl: 1m\nlog: {}\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.Load(write(t, text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCacheDirIsTheUsersUnlessRoot(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	want := filepath.Join(home, "cache", "larder")
	if os.Geteuid() == 0 {
		want = "/var/lib/larder"
	}
	if got := load(t, "").Cache.Dir; got != want {
		t.Errorf("cache.dir = %q, want %q", got, want)
	}
}

func TestRelativePathsStartFromTheFile(t *testing.T) {
	file := write(t, "cache: {dir: blobs}\n")
	t.Chdir(t.TempDir())
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(file), "blobs"); c.Cache.Dir != want {
		t.Errorf("cache.dir = %q, want %q", c.Cache.Dir, want)
	}
}

func TestNoDefaultUpstreamIfDockerHubIsNotServed(t *testing.T) {
	c, err := config.Load(write(t, "upstreams: [{host: quay.io}]\n"))
	if err != nil || c.DefaultUpstream != "" {
		t.Errorf("Load = %+v, %v; want no default upstream", c, err)
	}
}

func TestAliasesStandForTheirValues(t *testing.T) {
	c, err := config.Load(write(t, `
upstreams:
  - host: one.example.com
    auth: &reader {username: reader, password_file: /run/secrets/registry}
  - host: two.example.com
    auth: *reader
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := (config.Auth{Username: "reader", PasswordFile: "/run/secrets/registry"}); !cmp.Equal(c.Upstreams[1].Auth, want) {
		t.Errorf("auth = %+v, want %+v", c.Upstreams[1].Auth, want)
	}
}

func TestListenersCollideOnlyOnTheSamePortAndAddress(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:5000", "127.0.0.1:5000", true},
		{"127.0.0.1:5000", "localhost:5000", true},
		{"127.0.0.1:5000", ":5000", true},
		{"[::]:5000", "10.0.0.5:5000", true},
		{"127.0.0.1:5000", "127.0.0.1:5001", false},
		{"127.0.0.1:5000", "127.0.0.2:5000", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			_, err := config.Load("", config.Override{Key: "listen", Value: pair[0]}, config.Override{Key: "admin", Value: pair[1]})
			if (err != nil) != test.want {
				t.Errorf("listen on %s, admin on %s: %v, want a collision: %t", pair[0], pair[1], err, test.want)
			}
		}
	}
}
