package config_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/config"
)

func TestFlagsWinOverVariablesAndVariablesOverTheFile(t *testing.T) {
	file := write(t, "tags: {ttl: 1s, stale_if_error: 1s, negative_ttl: 1s}\n")
	overrides := config.Env([]string{"LARDER_TAGS_STALE_IF_ERROR=2s", "LARDER_TAGS_NEGATIVE_TTL=2s"})
	overrides = append(overrides, config.Override{Key: "tags.negative_ttl", Value: "3s", Source: "--tags-negative-ttl"})
	c, err := config.Load(file, overrides...)
	if err != nil {
		t.Fatal(err)
	}
	if want := (config.Tags{TTL: time.Second, StaleIfError: 2 * time.Second, NegativeTTL: 3 * time.Second}); !reflect.DeepEqual(c.Tags, want) {
		t.Errorf("tags = %+v, want %+v", c.Tags, want)
	}
}

func TestEveryPlainKeyHasAVariable(t *testing.T) {
	want := []string{
		"LARDER_LISTEN", "LARDER_ADMIN", "LARDER_TLS_CERT", "LARDER_TLS_KEY", "LARDER_TLS_CLIENT_CA", "LARDER_AUTH_HTPASSWD", "LARDER_CACHE_DIR", "LARDER_CACHE_MAX_SIZE", "LARDER_CACHE_MIN_FREE",
		"LARDER_CACHE_LOW_WATER", "LARDER_CACHE_PIN_ALL_PLATFORMS", "LARDER_CACHE_VERIFY_ON_READ",
		"LARDER_CACHE_SCRUB_EVERY", "LARDER_CACHE_SCRUB_RATE",
		"LARDER_TAGS_TTL", "LARDER_TAGS_STALE_IF_ERROR", "LARDER_TAGS_STALE_IF_GONE", "LARDER_TAGS_NEGATIVE_TTL",
		"LARDER_LINK_RATE", "LARDER_LINK_BACKGROUND_RATE", "LARDER_LINK_BACKGROUND_HOURS", "LARDER_ACCESS_RECHECK", "LARDER_ACCESS_OFFLINE", "LARDER_ACCESS_KEY_FILE", "LARDER_ACCESS_REALM",
		"LARDER_AUDIT_FILE", "LARDER_AUDIT_REQUIRED",
		"LARDER_PEERS_LISTEN", "LARDER_PEERS_ADVERTISE", "LARDER_PEERS_KEY_FILE", "LARDER_PEERS_ZONE", "LARDER_PEERS_SPAN", "LARDER_PEERS_UPLOAD",
		"LARDER_SHARED_S3_BUCKET", "LARDER_SHARED_S3_PREFIX", "LARDER_SHARED_S3_REGION", "LARDER_SHARED_S3_ENDPOINT",
		"LARDER_SHARED_S3_PATH_STYLE", "LARDER_SHARED_S3_WRITE", "LARDER_SHARED_S3_RATE", "LARDER_SHARED_KEY_FILE",
		"LARDER_DEFAULT_UPSTREAM", "LARDER_LOG_LEVEL", "LARDER_LOG_FORMAT",
		"LARDER_TELEMETRY_OTLP_ENDPOINT",
		"LARDER_TELEMETRY_SAMPLE_RATIO",
		"LARDER_TELEMETRY_REPOSITORY_LABEL",
	}
	for _, variable := range want {
		if got := config.Env([]string{variable + "=x"}); len(got) != 1 || got[0].Key == "" {
			t.Errorf("%s is read as %+v", variable, got)
		}
	}
	_, err := config.Load("", config.Override{Value: "1", Source: "LARDER_XYZZY"})
	all := strings.Join(want[:len(want)-1], ", ") + " or " + want[len(want)-1]
	if err == nil || !strings.HasSuffix(err.Error(), "expected "+all) {
		t.Errorf("got  %v\nwant all of %s", err, all)
	}
}

func TestZoneOfTheEnvironmentIsADefault(t *testing.T) {
	const peers = "peers: {join: [10.0.3.7:5003], key_file: /etc/larder/peers.key%s}\n"
	for _, test := range []struct {
		file string
		env  []string
		want string
	}{
		{"", []string{"LARDER_ZONE=us-east-1b"}, "us-east-1b"},
		{", zone: us-east-1a", []string{"LARDER_ZONE=us-east-1b"}, "us-east-1a"},
		{", zone: us-east-1a", []string{"LARDER_PEERS_ZONE=us-east-1c", "LARDER_ZONE=us-east-1b"}, "us-east-1c"},
		{"", []string{"LARDER_ZONE=us-east-1b", "LARDER_PEERS_ZONE=us-east-1c"}, "us-east-1c"},
	} {
		c, err := config.Load(write(t, fmt.Sprintf(peers, test.file)), config.Env(test.env)...)
		if err != nil {
			t.Error(err)
		} else if c.Peers.Zone != test.want {
			t.Errorf("zone%s, %v: got %q, want %q", test.file, test.env, c.Peers.Zone, test.want)
		}
	}
	if _, err := config.Load("", config.Env([]string{"LARDER_ZONE=no zone"})...); err == nil || !strings.Contains(err.Error(), "LARDER_ZONE") {
		t.Errorf("a zone with a space: %v", err)
	}
}

func TestEnvReadsOnlyLardersVariables(t *testing.T) {
	got := config.Env([]string{
		"PATH=/usr/bin",
		"LARDER_CACHE_DIR=/srv/a=b",
		"LARDER_CONFIG=/etc/larder/larder.yaml",
		"LARDER_REQUIRE=containerd",
		"LARDER_ADMIN=",
		"LARDERS=1",
		"LARDER_TAGS_TLT=1m",
	})
	want := []config.Override{
		{Key: "cache.dir", Value: "/srv/a=b", Source: "LARDER_CACHE_DIR"},
		{Key: "admin", Value: "", Source: "LARDER_ADMIN"},
		{Key: "", Value: "1m", Source: "LARDER_TAGS_TLT"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Env (-want +got):\n%s", diff)
	}
}

func TestEnvIgnoresServiceVariablesOfKubernetes(t *testing.T) {
	links := []string{
		"LARDER_SERVICE_HOST=10.0.0.1",
		"LARDER_SERVICE_PORT=5000",
		"LARDER_SERVICE_PORT_HTTP=5000",
		"LARDER_PORT=tcp://10.0.0.1:5000",
		"LARDER_PORT_5000_TCP=tcp://10.0.0.1:5000",
		"LARDER_PORT_5000_TCP_PROTO=tcp",
		"LARDER_PORT_5000_TCP_PORT=5000",
		"LARDER_PORT_5000_TCP_ADDR=10.0.0.1",
		"LARDER_ADMIN_SERVICE_HOST=10.0.0.2",
		"LARDER_ADMIN_PORT=tcp://10.0.0.2:5001",
		"LARDER_ADMIN_PORT_5001_TCP=tcp://10.0.0.2:5001",
	}
	if got := config.Env(links); len(got) != 0 {
		t.Errorf("Env = %+v, want none", got)
	}
	if got := config.Env([]string{"LARDER_PORT=5000"}); len(got) != 1 {
		t.Errorf("Env ignores LARDER_PORT=5000, which Kubernetes does not set: %+v", got)
	}
}

func TestMistakesInOverridesNameTheirSource(t *testing.T) {
	for _, test := range []struct {
		file     string
		override config.Override
		want     string
	}{
		{"", config.Override{Key: "tags.ttl", Value: "soon", Source: "LARDER_TAGS_TTL"}, `LARDER_TAGS_TTL: tags.ttl: expected a duration such as 90s or 12h, got "soon"`},
		{"", config.Override{Key: "cache.max_size", Value: "60", Source: "--max-size"}, `--max-size: cache.max_size: expected a number with a unit such as GiB, MB or %, got "60"`},
		{"", config.Override{Key: "cache.min_free", Value: "", Source: "LARDER_CACHE_MIN_FREE"}, `LARDER_CACHE_MIN_FREE: cache.min_free: expected a size such as 50GiB or a percentage such as 80%, got nothing`},
		{"", config.Override{Key: "listen", Value: "", Source: "--listen"}, `--listen: listen: expected host:port such as 127.0.0.1:5000, got nothing`},
		{"", config.Override{Key: "listen", Value: "127.0.0.1:5001", Source: "--listen"}, `--listen: listen: expected another address than admin's, which is 127.0.0.1:5001`},
		{"", config.Override{Key: "default_upstream", Value: "quay.io", Source: "--default-upstream"}, `--default-upstream: default_upstream: expected a host that one of the upstreams serves, got "quay.io"`},
		{"", config.Override{Key: "", Value: "1m", Source: "LARDER_TAGS_TLT"}, `LARDER_TAGS_TLT: unknown variable; did you mean LARDER_TAGS_TTL?`},
		{"", config.Override{Key: "", Value: "1", Source: "LARDER_XYZZY"}, `LARDER_XYZZY: unknown variable; expected LARDER_LISTEN, LARDER_ADMIN, LARDER_TLS_CERT, LARDER_TLS_KEY, LARDER_TLS_CLIENT_CA, LARDER_AUTH_HTPASSWD, LARDER_CACHE_DIR, LARDER_CACHE_MAX_SIZE, LARDER_CACHE_MIN_FREE, LARDER_CACHE_LOW_WATER, LARDER_CACHE_PIN_ALL_PLATFORMS, LARDER_CACHE_VERIFY_ON_READ, LARDER_CACHE_SCRUB_EVERY, LARDER_CACHE_SCRUB_RATE, LARDER_TAGS_TTL, LARDER_TAGS_STALE_IF_ERROR, LARDER_TAGS_STALE_IF_GONE, LARDER_TAGS_NEGATIVE_TTL, LARDER_LINK_RATE, LARDER_LINK_BACKGROUND_RATE, LARDER_LINK_BACKGROUND_HOURS, LARDER_ACCESS_RECHECK, LARDER_ACCESS_OFFLINE, LARDER_ACCESS_KEY_FILE, LARDER_ACCESS_REALM, LARDER_AUDIT_FILE, LARDER_AUDIT_REQUIRED, LARDER_PEERS_LISTEN, LARDER_PEERS_ADVERTISE, LARDER_PEERS_KEY_FILE, LARDER_PEERS_ZONE, LARDER_PEERS_SPAN, LARDER_PEERS_UPLOAD, LARDER_SHARED_S3_BUCKET, LARDER_SHARED_S3_PREFIX, LARDER_SHARED_S3_REGION, LARDER_SHARED_S3_ENDPOINT, LARDER_SHARED_S3_PATH_STYLE, LARDER_SHARED_S3_WRITE, LARDER_SHARED_S3_RATE, LARDER_SHARED_KEY_FILE, LARDER_DEFAULT_UPSTREAM, LARDER_LOG_LEVEL, LARDER_LOG_FORMAT, LARDER_TELEMETRY_OTLP_ENDPOINT, LARDER_TELEMETRY_SAMPLE_RATIO or LARDER_TELEMETRY_REPOSITORY_LABEL`},
		{"", config.Override{Key: "tags", Value: "1m", Source: "--tags"}, `--tags: tags: unknown key; did you mean tags.ttl?`},
		{"", config.Override{Key: "upstreams", Value: "docker.io", Source: "--upstreams"}, `--upstreams: upstreams: unknown key; expected listen, admin, tls.cert, tls.key, tls.client_ca, auth.htpasswd, cache.dir, cache.max_size, cache.min_free, cache.low_water, cache.pin_all_platforms, cache.verify_on_read, cache.scrub_every, cache.scrub_rate, tags.ttl, tags.stale_if_error, tags.stale_if_gone, tags.negative_ttl, link.rate, link.background.rate, link.background.hours, access.recheck, access.offline, access.key_file, access.realm, audit.file, audit.required, peers.listen, peers.advertise, peers.key_file, peers.zone, peers.span, peers.upload, shared.s3.bucket, shared.s3.prefix, shared.s3.region, shared.s3.endpoint, shared.s3.path_style, shared.s3.write, shared.s3.rate, shared.key_file, default_upstream, log.level, log.format, telemetry.otlp_endpoint, telemetry.sample_ratio or telemetry.repository_label`},
	} {
		_, err := config.Load(test.file, test.override)
		if err == nil || err.Error() != test.want {
			t.Errorf("Load with %+v:\n got %v\nwant %s", test.override, err, test.want)
		}
	}
}

func TestMistakesInTheFileComeFirstByLine(t *testing.T) {
	file := write(t, "admin: 127.0.0.1:5000\nlog: {level: all}\n")
	_, err := config.Load(file, config.Override{Key: "tags.ttl", Value: "soon", Source: "LARDER_TAGS_TTL"}, config.Override{Key: "log.format", Value: "xml", Source: "--log-format"})
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatalf("Load: %v, want Mistakes", err)
	}
	var keys []string
	for _, m := range mistakes {
		keys = append(keys, m.Key)
	}
	// The mistake of admin is found last, since it depends on two keys.
	if want := []string{"admin", "log.level", "tags.ttl", "log.format"}; !slices.Equal(keys, want) {
		t.Errorf("keys = %v, want %v", keys, want)
	}
}

func TestOverriddenValuesAreCheckedToo(t *testing.T) {
	file := write(t, "listen: nowhere\n")
	_, err := config.Load(file, config.Override{Key: "listen", Value: "127.0.0.1:6000", Source: "--listen"})
	if err == nil {
		t.Error("a flag hides a mistake in the file")
	}
}
