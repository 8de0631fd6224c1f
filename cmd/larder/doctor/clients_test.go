package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

// step returns the step with a name of checkClients.
func step(t *testing.T, cfg *config.Config, name string) Step {
	t.Helper()
	e := newExamination(t.Context(), time.Minute, nil)
	checkClients(e, cfg)
	for _, s := range e.steps {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no step %s in %+v", name, e.steps)
	return Step{}
}

func TestDoctorExaminesTheFilesOfTLS(t *testing.T) {
	ca := tlstest.NewAuthority(t)
	issue := func(in time.Duration) tlstest.Pair {
		return ca.Issue(t, "server", time.Now().Add(in), tlstest.Pair{}, "127.0.0.1", "cache.example.internal")
	}
	good, other := issue(24*time.Hour), issue(24*time.Hour)
	far := ca.Issue(t, "far", time.Now().Add(47*time.Hour), tlstest.Pair{}, "127.0.0.1")
	for name, test := range map[string]struct {
		pair   tlstest.Pair
		names  []string
		status Status
		want   string
	}{
		"expires soon":       {good, nil, Warning, "expires at"},
		"expired":            {issue(-time.Hour), nil, Failed, "has expired"},
		"not valid yet":      {issue(72 * time.Hour), nil, Failed, "is valid from"},
		"the key of another": {tlstest.Pair{Cert: good.Cert, Key: other.Key}, nil, Failed, "does not match"},
		"not there":          {tlstest.Pair{Cert: "/nowhere/tls.crt", Key: good.Key}, nil, Failed, "/nowhere/tls.crt"},
		"soon, other name":   {far, []string{"cache.example.internal"}, Warning, "expires at"},
	} {
		cfg := &config.Config{Listen: "127.0.0.1:5000", Names: test.names, TLS: config.TLS{Cert: test.pair.Cert, Key: test.pair.Key}}
		if s := step(t, cfg, "tls"); s.Status != test.status || !strings.Contains(s.Detail, test.want) || s.Advice == "" {
			t.Errorf("%s: %+v, want %s with %q", name, s, test.status, test.want)
		}
	}
}

func TestDoctorComparesTheCertificateWithNames(t *testing.T) {
	pair := tlstest.NewAuthority(t).LongLived(t, "127.0.0.1", "cache.example.internal")
	tls := config.TLS{Cert: pair.Cert, Key: pair.Key}
	for _, test := range []struct {
		listen string
		names  []string
		want   string // "" if all is well
	}{
		{"127.0.0.1:5000", nil, ""},
		{":5000", []string{"cache.example.internal"}, ""},
		{"0.0.0.0:5000", nil, ""},
		{"127.0.0.1:5000", []string{"other.example.internal"}, "not for other.example.internal"},
		{"192.0.2.7:5000", nil, "not for 192.0.2.7"},
	} {
		s := step(t, &config.Config{Listen: test.listen, Names: test.names, TLS: tls}, "tls")
		if (s.Status == OK) != (test.want == "") || !strings.Contains(s.Detail, test.want) {
			t.Errorf("%s %v: %+v, want %q", test.listen, test.names, s, test.want)
		}
	}
}

func TestDoctorExaminesTheFileOfUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	for content, want := range map[string]Status{
		"alice:$2y$05$" + strings.Repeat("a", 53) + "\n": OK, "alice:hunter2\n": Failed,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s := step(t, &config.Config{Auth: config.ClientAuth{Htpasswd: file}}, "users")
		if s.Status != want || strings.Contains(s.Detail, "hunter2") {
			t.Errorf("%q: %+v, want %s", content, s, want)
		}
	}
}

func TestDoctorSaysThatBeliefEndsWithTokensOfECR(t *testing.T) {
	for host, test := range map[name.HostPattern]struct {
		offline time.Duration
		status  Status
		want    string
	}{
		"registry.example.com":                         {720 * time.Hour, OK, "720h0m0s"},
		"123456789012.dkr.ecr.us-east-1.amazonaws.com": {720 * time.Hour, Warning, "12h0m0s at most"},
		"*.dkr.ecr.*.amazonaws.com":                    {13 * time.Hour, Warning, "12h0m0s at most"},
		"*.dkr.ecr.us-west-2.amazonaws.com":            {12 * time.Hour, OK, "12h0m0s"},
	} {
		s := step(t, &config.Config{
			Access:    config.Access{Offline: test.offline},
			Upstreams: []config.Upstream{{Host: host, Access: config.AccessClient}, {Host: "*.dkr.ecr.eu-west-1.amazonaws.com"}},
		}, "access")
		if s.Status != test.status || !strings.Contains(s.Detail, test.want) || strings.Contains(s.Detail, "eu-west-1") || (s.Advice == "") != (s.Status == OK) {
			t.Errorf("%s: %+v", host, s)
		}
	}
}
