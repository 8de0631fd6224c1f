package doctor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/larder/doctor"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
)

// repository is the module's root, seen from this package's folder, where go test runs its tests.
const repository = "../../.."

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setup is a fake ECR with an image, and a configuration for it.
type setup struct {
	t       *testing.T
	fake    *ecrtest.Running
	dir     string
	config  string // the file
	host    string // keys of the upstream, in YAML, below its host
	extra   string // other upstreams, in YAML
	image   string
	timeout time.Duration // of each step
}

// secretKey must not be seen in any output.
const secretKey = "the-secret-access-key"

func newSetup(t *testing.T, opts ecrtest.Options) *setup {
	t.Helper()
	fake, err := ecrtest.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fake.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := fake.AddImage("team/app", "1.0", ecrtest.Image{
		Layers:    []ecrtest.Layer{{Content: ecrtest.Random(1, 5000)}},
		Platforms: []string{"linux/amd64", "linux/arm64"},
	}); err != nil {
		t.Fatal(err)
	}
	c := &setup{t: t, fake: fake, dir: t.TempDir(), image: fake.Host() + "/team/app:1.0", timeout: 10 * time.Second}
	c.config = filepath.Join(c.dir, "larder.yaml")
	c.host = "endpoint: " + fake.Endpoint + "\n    ecr: {api_endpoint: " + fake.Endpoint + "}"
	for name, value := range fake.Environment() {
		t.Setenv(name, value)
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		t.Setenv(name, "")
	}
	c.asKey(ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: secretKey})
	return c
}

// asKey has the doctor find these credentials.
func (c *setup) asKey(key ecrtest.Key) {
	for name, value := range key.Environment() {
		c.t.Setenv(name, value)
	}
}

// asUser has the doctor find credentials of a user of an account who may do this.
func (c *setup) asUser(account string, actions ...string) {
	key := c.fake.AWS().AddUser("arn:aws:iam::"+account+":user/larder", ecrtest.Policy{ecrtest.Allow(actions...)})
	key.SecretAccessKey = secretKey
	c.asKey(key)
}

// assumeRole has the upstream asked by a role, which trusts a principal.
func (c *setup) assumeRole(role, trusts string) {
	c.fake.AWS().AddRole(ecrtest.Role{ARN: role, Policy: ecrtest.Policy{ecrtest.Allow("*")}, Trusts: []string{trusts}})
	c.host = strings.Replace(c.host, "ecr: {", "ecr: {role_arn: "+role+", ", 1)
}

// endpoint moves the registry, but not the ECR API.
func (c *setup) endpoint(url string) {
	c.host = strings.Replace(c.host, "endpoint: "+c.fake.Endpoint, "endpoint: "+url, 1)
}

// examine returns the steps by their names, those about other upstreams than the fake with their host in front, and
// whether all of them went well.
func (c *setup) examine() (steps map[string]doctor.Step, well bool) {
	c.t.Helper()
	writeFile(c.t, c.config, fmt.Sprintf("cache: {dir: %s, min_free: 0, max_size: 256MiB}\nupstreams:\n  - host: %s\n    %s\n%s",
		filepath.Join(c.dir, "cache"), c.fake.Host(), c.host, c.extra))
	var image name.Image
	if c.image != "" {
		var err error
		if image, err = name.ParseShortImage(c.image); err != nil {
			c.t.Fatal(err)
		}
	}
	all := doctor.Examine(c.t.Context(), doctor.Options{
		Load: func() (*config.Config, string, error) {
			cfg, err := config.Load(c.config, config.Env(os.Environ())...)
			return cfg, c.config, err
		},
		Image:   image,
		Timeout: c.timeout,
	})
	printed, err := json.Marshal(all)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, secret := range []string{secretKey, "X-Amz-Signature", "hunter2", "AKIDLARDERTEST"} {
		if bytes.Contains(printed, []byte(secret)) {
			c.t.Errorf("the steps show %s: %s", secret, printed)
		}
	}
	steps, well = make(map[string]doctor.Step), true
	for _, s := range all {
		name := s.Name
		if s.Upstream != "" && s.Upstream != c.fake.Host() {
			name = s.Upstream + " " + name
		}
		steps[name] = s
		well = well && s.Status != doctor.Failed
	}
	return steps, well
}

// healthy is how all steps end where nothing is wrong.
var healthy = map[string]doctor.Status{
	"configuration": doctor.OK, "cache": doctor.OK, "proxy": doctor.Skipped, "host": doctor.OK,
	"registry-dns": doctor.Skipped, "registry-tcp": doctor.OK, "registry-tls": doctor.Skipped,
	"aws-config":  doctor.OK,
	"ecr-api-dns": doctor.Skipped, "ecr-api-tcp": doctor.OK, "ecr-api-tls": doctor.Skipped,
	"sts-dns": doctor.Skipped, "sts-tcp": doctor.OK, "sts-tls": doctor.Skipped,
	"clock": doctor.OK, "credentials": doctor.OK, "metadata": doctor.Skipped, "token": doctor.OK, "keep-alive": doctor.OK, "replicas": doctor.Skipped,
	"manifest": doctor.OK, "redirect": doctor.OK,
	"storage-dns": doctor.OK, "storage-tcp": doctor.OK, "storage-tls": doctor.Skipped, "layer": doctor.OK,
}

func TestDoctorAssumesTheUpstreamsRole(t *testing.T) {
	c := newSetup(t, ecrtest.Options{})
	c.assumeRole("arn:aws:iam::123456789012:role/reader", "123456789012")
	steps, well := c.examine()
	if diff := cmp.Diff(healthy, statuses(steps)); diff != "" || !well {
		t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
	}
	want := "arn:aws:sts::123456789012:assumed-role/reader/larder, from a role that is assumed, good for "
	if got := steps["credentials"].Detail; !strings.HasPrefix(got, want) {
		t.Errorf("credentials: %q, want %q", got, want)
	}
}

func statuses(steps map[string]doctor.Step) map[string]doctor.Status {
	all := make(map[string]doctor.Status)
	for name, s := range steps {
		all[name] = s.Status
	}
	return all
}

func TestDoctorPassesAHealthySetup(t *testing.T) {
	c := newSetup(t, ecrtest.Options{})
	steps, well := c.examine()
	if diff := cmp.Diff(healthy, statuses(steps)); diff != "" || !well {
		t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
	}
	for name, want := range map[string]string{
		"host":        "private ECR of account 123456789012 in us-east-1",
		"credentials": "arn:aws:iam::123456789012:user/larder, from environment variables",
		"token":       "ECR token, good for 12h0m",
		"manifest":    "of 2; of these sha256:",
		"redirect":    "http://localhost:",
		"layer":       "1024 bytes of sha256:",
	} {
		if !strings.Contains(steps[name].Detail, want) {
			t.Errorf("%s: %q, want it to say %q", name, steps[name].Detail, want)
		}
	}
	for name, s := range steps {
		if s.Advice != "" {
			t.Errorf("%s has advice: %s", name, s.Advice)
		}
	}
}

// faults are what can be wrong, each with the advice that the doctor must give.
var faults = map[string]struct {
	opts  ecrtest.Options
	cause func(*setup)
	// step is the one that fails, with this in its advice; since it is needed, those
	// from skipped on are not tried. All others are as they are in health, but for those
	// in others.
	step, advice string
	skipped      []string
	others       map[string]doctor.Status
}{
	"the registry's name does not resolve": {
		cause: func(c *setup) { c.endpoint("https://registry.larder.invalid") },
		step:  "registry-dns", skipped: append(fromToken, "registry-tcp", "clock"),
	},
	"nothing listens there": {
		cause: func(c *setup) { c.endpoint("http://" + deploytest.FreeAddress(c.t)) },
		step:  "registry-tcp", advice: "Nothing listens there", skipped: append(fromToken, "clock"),
	},
	"it speaks TLS and is asked by plain HTTP": {
		cause: func(c *setup) { c.endpoint(strings.Replace(tlsServer(c.t), "https:", "http:", 1)) },
		step:  "registry-tls", advice: "let the endpoint begin with https://", skipped: append(fromToken, "clock"),
	},
	"it speaks TLS and cuts plain HTTP off": {
		cause: func(c *setup) { c.endpoint("http://" + answering(c.t, "\x15\x03\x01\x00\x02\x02\x0a")) },
		step:  "registry-tls", advice: "let the endpoint begin with https://", skipped: append(fromToken, "clock"),
	},
	"it speaks plain HTTP and is asked by TLS": {
		cause: func(c *setup) { c.endpoint(strings.Replace(c.fake.Endpoint, "http:", "https:", 1)) },
		step:  "registry-tls", advice: "let the endpoint begin with http://", skipped: append(fromToken, "clock"),
	},
	"it accepts connections and says nothing": {
		cause: func(c *setup) {
			c.timeout = time.Second
			c.endpoint("http://" + answering(c.t, ""))
		},
		step: "registry-tls", advice: "accepts connections and does not answer", skipped: append(fromToken, "clock"),
	},
	"its certificate is not trusted": {
		cause: func(c *setup) { c.endpoint(tlsServer(c.t)) },
		step:  "registry-tls", advice: "SSL_CERT_FILE", skipped: append(fromToken, "clock"),
	},
	"the ECR API cannot be reached": {
		cause: func(c *setup) {
			c.host = strings.Replace(c.host, "api_endpoint: "+c.fake.Endpoint, "api_endpoint: http://"+deploytest.FreeAddress(c.t), 1)
		},
		step: "ecr-api-tcp", advice: "Nothing listens there", skipped: fromAPI,
	},
	"there are no credentials": {
		cause: func(c *setup) { c.asKey(ecrtest.Key{}) },
		step:  "credentials", advice: "Give larder AWS credentials", skipped: fromAPI,
	},
	"the session has expired": {
		cause: func(c *setup) {
			c.fake.Inject(ecrtest.Fault{On: ecrtest.STS, Status: http.StatusForbidden, Code: "ExpiredToken",
				Message: "The security token included in the request is expired"})
		},
		step: "credentials", advice: "aws sso login", skipped: fromAPI,
	},
	"the access key is not known": {
		cause: func(c *setup) { c.asKey(ecrtest.Key{AccessKeyID: "AKIDNOBODY", SecretAccessKey: secretKey}) },
		step:  "credentials", advice: "AWS does not know this access key", skipped: fromAPI,
	},
	"no permission for tokens": {
		cause: func(c *setup) { c.asUser("123456789012", settings...) },
		step:  "token", advice: "deploy/iam/pull.json", skipped: fromToken[1:],
	},
	"no permission to pull": {
		cause: func(c *setup) { c.asUser("123456789012", append(settings, "ecr:GetAuthorizationToken")...) },
		step:  "manifest", advice: "deploy/iam/pull.json", skipped: fromToken[2:],
	},
	"a role that does not trust us": {
		cause: func(c *setup) {
			c.assumeRole("arn:aws:iam::210987654321:role/reader", "arn:aws:iam::210987654321:role/other")
		},
		step: "credentials", advice: "deploy/iam/assume-role-trust.json", skipped: fromAPI,
	},
	"a permission for manifests only": {
		cause: func(c *setup) {
			c.asUser("123456789012", append(settings, "ecr:GetAuthorizationToken", "ecr:BatchGetImage")...)
		},
		step: "redirect", advice: "deploy/iam/pull.json", skipped: fromToken[3:],
	},
	"no policy of another account's repository": {
		cause: func(c *setup) { c.asUser("210987654321", "*") },
		step:  "manifest", advice: "deploy/iam/cross-account-repository.json", skipped: fromToken[2:],
		others: map[string]doctor.Status{"keep-alive": doctor.Skipped, "replicas": doctor.Skipped},
	},
	"no such image": {
		cause: func(c *setup) { c.image = c.fake.Host() + "/team/app:2.0" },
		step:  "manifest", advice: "Check the repository's name and the tag", skipped: fromToken[2:],
	},
	"the clock is wrong": {
		opts: ecrtest.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }},
		step: "clock", advice: "Set the clock of this machine",
	},
	"the registry withholds layers": {
		cause: func(c *setup) { c.fake.Inject(ecrtest.Fault{On: ecrtest.Blob, Status: http.StatusForbidden}) },
		step:  "redirect", advice: "ecr:GetDownloadUrlForLayer", skipped: fromToken[3:],
	},
	"the storage cannot be reached": {
		cause: func(c *setup) {
			_, port, _ := net.SplitHostPort(deploytest.FreeAddress(c.t))
			c.fake.SetStorageURL("http://localhost:" + port)
		},
		step: "storage-tcp", advice: "the registry sends Larder to this host for layers", skipped: []string{"layer"},
	},
	"the storage refuses": {
		cause: func(c *setup) { c.fake.Inject(ecrtest.Fault{On: ecrtest.Storage, Status: http.StatusForbidden}) },
		step:  "layer", advice: "s3:GetObject",
	},
	"the storage breaks off": {
		cause: func(c *setup) { c.fake.Inject(ecrtest.Fault{On: ecrtest.Storage, CutAfter: new(int64(100))}) },
		step:  "layer", advice: "cuts or holds connections",
	},
	"the storage holds the layer back": {
		cause: func(c *setup) {
			c.timeout = time.Second
			c.t.Cleanup(c.fake.Inject(ecrtest.Fault{On: ecrtest.Storage, StallAfter: new(int64(100))}))
		},
		step: "layer", advice: "cuts or holds connections",
	},
	"the cache folder is a file": {
		cause: func(c *setup) { writeFile(c.t, filepath.Join(c.dir, "cache"), "") },
		step:  "cache", advice: "Give the folder to the user",
	},
	"the proxy's variable is no URL": {
		cause: func(c *setup) { c.t.Setenv("HTTPS_PROXY", "http://me:hunter2@%zz") },
		step:  "proxy", advice: "Set it to a URL",
	},
}

// fromToken are the steps that need a token, and the token.
var fromToken = slices.Clip([]string{
	"token", "manifest", "redirect", "storage-dns", "storage-tcp", "storage-tls", "layer",
})

// fromAPI are the steps that need the ECR API.
var fromAPI = append(fromToken, "keep-alive", "replicas")

// settings are the actions that show the registry's settings.
var settings = slices.Clip([]string{"ecr:ListPullTimeUpdateExclusions", "ecr:DescribeRegistry"})

func TestDoctorFindsEachFault(t *testing.T) {
	for name, test := range faults {
		t.Run(name, func(t *testing.T) {
			c := newSetup(t, test.opts)
			if test.cause != nil {
				test.cause(c)
			}
			steps, well := c.examine()
			want := maps.Clone(healthy)
			want[test.step] = doctor.Failed
			for _, skipped := range test.skipped {
				want[skipped] = doctor.Skipped
			}
			maps.Copy(want, test.others)
			if diff := cmp.Diff(want, statuses(steps)); diff != "" || well {
				t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
			}
			bad := steps[test.step]
			if bad.Detail == "" || bad.Advice == "" || !strings.Contains(bad.Advice, test.advice) {
				t.Errorf("%+v; want advice that says %q", bad, test.advice)
			}
			for _, skipped := range test.skipped {
				if !strings.Contains(steps[skipped].Detail, test.step) {
					t.Errorf("%s does not say that it needs %s: %s", skipped, test.step, steps[skipped].Detail)
				}
			}
		})
	}
}

func TestDoctorStopsAtAnInvalidConfiguration(t *testing.T) {
	c := newSetup(t, ecrtest.Options{})
	c.host = "timeout: soon\n    ecr: {region: us-east-1, rolearn: x}"
	steps, well := c.examine()
	if diff := cmp.Diff(map[string]doctor.Status{"configuration": doctor.Failed}, statuses(steps)); diff != "" || well {
		t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
	}
	for _, mistake := range []string{c.config + ":4: upstreams[0].timeout:", c.config + ":5: upstreams[0].ecr.rolearn:"} {
		if !strings.Contains(steps["configuration"].Detail, mistake) {
			t.Errorf("%q does not say %q", steps["configuration"].Detail, mistake)
		}
	}
}

func TestDoctorAsksOnlyConfiguredUpstreams(t *testing.T) {
	for name, test := range map[string]struct{ keys, image, step, advice string }{
		"another registry":   {"", "ghcr.io/team/app:1.0", "ghcr.io host", "Add it to upstreams"},
		"another repository": {"\n    allow: [other/*]", "", "host", "Add a pattern"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSetup(t, ecrtest.Options{})
			c.host += test.keys
			if test.image != "" {
				c.image = test.image
			}
			steps, well := c.examine()
			want := map[string]doctor.Status{"configuration": doctor.OK, "cache": doctor.OK, "proxy": doctor.Skipped, test.step: doctor.Failed}
			if diff := cmp.Diff(want, statuses(steps)); diff != "" || well {
				t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
			}
			if !strings.Contains(steps[test.step].Advice, test.advice) {
				t.Errorf("%+v; want advice that says %q", steps[test.step], test.advice)
			}
		})
	}
}

// warnings are what is odd and keeps nobody from pulling.
func TestDoctorWarnsOfWhatMayFailLater(t *testing.T) {
	for name, test := range map[string]struct {
		cause        func(*setup)
		want         map[string]doctor.Status // other than in health
		step, advice string
	}{
		"STS cannot be reached": {
			cause: func(c *setup) { c.t.Setenv("AWS_ENDPOINT_URL_STS", "http://"+deploytest.FreeAddress(c.t)) },
			want:  map[string]doctor.Status{"sts-tcp": doctor.Warning, "credentials": doctor.Warning},
			step:  "credentials", advice: "Pulls do not need STS",
		},
		"the metadata service's answers do not arrive": {
			cause: func(c *setup) {
				c.timeout = time.Second
				silent, err := net.Listen("tcp", "127.0.0.1:0") // whose backlog takes connections
				if err != nil {
					c.t.Fatal(err)
				}
				c.t.Cleanup(func() { silent.Close() })
				c.t.Setenv("AWS_EC2_METADATA_DISABLED", "")
				c.t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
			},
			want: map[string]doctor.Status{"metadata": doctor.Warning},
			step: "metadata", advice: "hostNetwork",
		},
		"ECR does not record our pulls": {
			cause: func(c *setup) { c.fake.SetPullTimeExclusions("arn:aws:iam::123456789012:user/larder") },
			want:  map[string]doctor.Status{"keep-alive": doctor.Warning},
			step:  "keep-alive", advice: "pull-time update exclusions",
		},
		"the list of exclusions may not be read": {
			cause: func(c *setup) {
				c.fake.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "ListPullTimeUpdateExclusions", Status: http.StatusBadRequest, Code: "AccessDeniedException"})
			},
			want: map[string]doctor.Status{"keep-alive": doctor.Skipped},
			step: "keep-alive", advice: "deploy/iam/pull-with-hints.json",
		},
		"the list of exclusions cannot be read": {
			cause: func(c *setup) {
				c.fake.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "ListPullTimeUpdateExclusions", Status: http.StatusBadRequest, Code: "ServerException"})
			},
			want: map[string]doctor.Status{"keep-alive": doctor.Warning},
			step: "keep-alive", advice: "Pulls do not need it",
		},
		"the replication rules may not be read": {
			cause: func(c *setup) {
				c.fake.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeRegistry", Status: http.StatusBadRequest, Code: "AccessDeniedException"})
			},
			want: map[string]doctor.Status{"replicas": doctor.Skipped},
			step: "replicas", advice: "deploy/iam/pull-with-hints.json",
		},
		"keep-alive is off": {
			cause: func(c *setup) { c.host = strings.Replace(c.host, "ecr: {", "ecr: {keep_alive: 0, ", 1) },
			want:  map[string]doctor.Status{"keep-alive": doctor.Skipped},
			step:  "keep-alive",
		},
		"the cache is larger than the disk": {
			cause: func(c *setup) { c.t.Setenv("LARDER_CACHE_MAX_SIZE", "4EiB") },
			want:  map[string]doctor.Status{"cache": doctor.Warning},
			step:  "cache", advice: "Lower cache.max_size",
		},
		"the disk is full": {
			cause: func(c *setup) { c.t.Setenv("LARDER_CACHE_MIN_FREE", "100%") },
			want:  map[string]doctor.Status{"cache": doctor.Warning},
			step:  "cache", advice: "Free some space",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSetup(t, ecrtest.Options{})
			test.cause(c)
			steps, well := c.examine()
			want := maps.Clone(healthy)
			maps.Copy(want, test.want)
			if diff := cmp.Diff(want, statuses(steps)); diff != "" || !well {
				t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
			}
			if !strings.Contains(steps[test.step].Advice, test.advice) {
				t.Errorf("%+v; want advice that says %q", steps[test.step], test.advice)
			}
		})
	}
}

func TestDoctorLeavesADaemonAlone(t *testing.T) {
	c := newSetup(t, ecrtest.Options{})
	dir := filepath.Join(c.dir, "cache")
	store, err := cache.Open(dir, cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	socket, err := new(net.ListenConfig).Listen(t.Context(), "unix", daemon.SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	steps, well := c.examine()
	want := fmt.Sprintf("is in use by larder serve, process %d", os.Getpid())
	if s := steps["cache"]; s.Status != doctor.OK || !strings.Contains(s.Detail, want) || !well {
		t.Errorf("all went well: %t, %+v; want it to say %q", well, s, want)
	}
}

func TestDoctorExaminesAllUpstreamsWithoutAnImage(t *testing.T) {
	var asked []string
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(hub.Close)
	c := newSetup(t, ecrtest.Options{})
	c.image = ""
	c.extra = "  - host: registry.example.com\n    endpoint: " + hub.URL + "\n  - host: \"*.mirror.example.com\"\n"
	steps, well := c.examine()
	want := map[string]doctor.Status{
		"patterns":                          doctor.Skipped,
		"registry.example.com host":         doctor.OK,
		"registry.example.com registry-dns": doctor.Skipped,
		"registry.example.com registry-tcp": doctor.OK,
		"registry.example.com registry-tls": doctor.Skipped,
		"registry.example.com clock":        doctor.OK,
		"registry.example.com credentials":  doctor.Skipped,
		"registry.example.com token":        doctor.Skipped,
	}
	for name, s := range healthy {
		if !slices.Contains(fromToken[1:], name) {
			want[name] = s
		}
	}
	if diff := cmp.Diff(want, statuses(steps)); diff != "" || !well {
		t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
	}
	if diff := cmp.Diff([]string{"/v2/"}, asked); diff != "" {
		t.Errorf("requests to the registry without credentials (-want +got):\n%s", diff)
	}
}

func TestDoctorPullsFromRegistriesWithTokens(t *testing.T) {
	const blob = "the layer"
	var hub *httptest.Server
	hub = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && user == "me" && password == "hunter2":
			_, _ = w.Write([]byte(`{"token":"good","expires_in":300}`))
		case r.URL.Path == "/token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+hub.URL+`/token",service="hub"`)
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("RateLimit-Limit", "100;w=21600")
			w.Header().Set("RateLimit-Remaining", "0;w=21600")
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"config":{"digest":%q,"size":9},"layers":[{"digest":%[1]q,"size":9}]}`, digest.FromString(blob))
		default:
			_, _ = w.Write([]byte(blob))
		}
	}))
	t.Cleanup(hub.Close)
	c := newSetup(t, ecrtest.Options{})
	passwords := filepath.Join(c.dir, "config.json")
	c.extra = "  - host: docker.io\n    endpoint: " + hub.URL + "\n    auth: {docker_config: " + passwords + "}\n"
	c.image = "busybox"
	writeFile(t, passwords, `{"auths":{"`+hub.Listener.Addr().String()+`":{"username":"me","password":"hunter2"}}}`)
	want := map[string]doctor.Status{
		"configuration": doctor.OK, "cache": doctor.OK, "proxy": doctor.Skipped,
		"docker.io host":         doctor.OK,
		"docker.io registry-dns": doctor.Skipped, "docker.io registry-tcp": doctor.OK, "docker.io registry-tls": doctor.Skipped,
		"docker.io clock":       doctor.OK,
		"docker.io credentials": doctor.OK,
		"docker.io token":       doctor.OK,
		"docker.io manifest":    doctor.OK,
		"docker.io rate-limit":  doctor.Warning,
		"docker.io redirect":    doctor.Skipped,
		"docker.io storage-dns": doctor.Skipped, "docker.io storage-tcp": doctor.Skipped, "docker.io storage-tls": doctor.Skipped,
		"docker.io layer": doctor.OK,
	}
	steps, well := c.examine()
	if diff := cmp.Diff(want, statuses(steps)); diff != "" || !well {
		t.Errorf("all went well: %t, steps (-want +got):\n%s", well, diff)
	}
	for name, text := range map[string]string{
		"docker.io credentials": "me, from " + passwords,
		"docker.io rate-limit":  "0 of 100 pulls are left in 6h0m0s",
	} {
		if !strings.Contains(steps[name].Detail, text) {
			t.Errorf("%s: %q, want it to say %q", name, steps[name].Detail, text)
		}
	}

	writeFile(t, passwords, `{"auths":{"`+hub.Listener.Addr().String()+`":{"username":"me","password":"old"}}}`)
	steps, well = c.examine()
	if s := steps["docker.io token"]; s.Status != doctor.Failed || !strings.Contains(s.Advice, "refuses these credentials") || well {
		t.Errorf("with an old password: all went well: %t, %+v", well, s)
	}
	writeFile(t, passwords, `hunter2`)
	steps, well = c.examine()
	if s := steps["docker.io credentials"]; s.Status != doctor.Failed || !strings.Contains(s.Advice, "Fix auth") || well {
		t.Errorf("with a broken file: all went well: %t, %+v", well, s)
	}
}

// iamDocument is how advice names one.
var iamDocument = regexp.MustCompile(`deploy/iam/[a-z-]+\.json`)

func TestAdviceNamesPoliciesThatExist(t *testing.T) {
	var named []string
	for _, file := range []string{"advice.go", "settings.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named = append(named, iamDocument.FindAllString(string(source), -1)...)
	}
	if len(named) == 0 {
		t.Fatal("advice names no policy")
	}
	for _, name := range named {
		if _, err := os.Stat(filepath.Join(repository, name)); err != nil {
			t.Error(err)
		}
	}
}

// tlsServer returns the URL of a server whose certificate is not trusted.
func tlsServer(t *testing.T) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// answering returns the address of a server that answers what it is asked by these bytes
// and ends the connection, or that sends nothing if there are none.
func answering(t *testing.T, bytes string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // whose backlog takes connections
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if bytes == "" {
		return l.Addr().String()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := conn.Read(make([]byte, 4096)); err == nil {
				_, _ = io.WriteString(conn, bytes)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
