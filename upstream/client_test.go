package upstream

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard/guardtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func TestHostThatIsNotConfiguredDoesNotExist(t *testing.T) {
	c, _ := newTestClient(t, Config{Host: "registry.test"})
	for _, host := range []string{"", "evil.example", "169.254.169.254", "registry.test.", "registry.test:443", "localhost"} {
		if _, err := c.Registry(host); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, want %v", host, err, fs.ErrNotExist)
		}
	}
	if c.registries.Len() != 0 {
		t.Error("there is something to reach them with")
	}
}

func TestRegistryIsMadeOnce(t *testing.T) {
	lookups := 0
	c := NewClient(Options{Lookup: func(host string) (Config, bool) {
		lookups++
		return Config{Host: host}, true
	}})
	defer c.Close()
	first := registryOf(t, c, "registry.test")
	if registryOf(t, c, "registry.test") != first || lookups != 1 {
		t.Errorf("another registry for the same host, after %d lookups", lookups)
	}
	if registryOf(t, c, "other.test") == first {
		t.Error("the same registry for another host")
	}
}

func TestOneClientSurvivesAnyNumberOfHosts(t *testing.T) {
	c := NewClient(Options{Lookup: func(host string) (Config, bool) { return Config{Host: host}, true }})
	defer c.Close()
	for i := range 2 * maxRegistries {
		registryOf(t, c, strings.Repeat("a", i+1)+".test")
	}
	if n := c.registries.Len(); n != maxRegistries {
		t.Errorf("%d registries are kept, want %d", n, maxRegistries)
	}
}

func TestEndpointDefaultsToTheHostByHTTPS(t *testing.T) {
	c, _ := newTestClient(t, Config{Host: "registry.test:5000"}, Config{Host: "broken.test", Endpoint: "http://%zz"})
	r := registryOf(t, c, "registry.test:5000")
	if got := siteOf(r).endpoint.String(); got != "https://registry.test:5000" {
		t.Errorf("the endpoint is %s", got)
	}
	if siteOf(r).timeout != defaultTimeout {
		t.Errorf("the timeout is %v, want %v", siteOf(r).timeout, defaultTimeout)
	}
	if _, err := c.Registry("broken.test"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an endpoint that is no URL: %v", err)
	}
}

func TestMakingRegistriesNeedsNoNetworkAndNoCredentials(t *testing.T) {
	upstreamtest.SetAWS(t, "")
	bell := guardtest.NewDoorbell(t)
	endpoint := "http://" + bell.Addr().String()
	c, _ := newTestClient(t,
		Config{Host: "plain.test", Endpoint: endpoint, Username: "me", PasswordFile: "/nowhere"},
		Config{Host: "ecr.test", Endpoint: endpoint, ECR: ECRConfig{APIEndpoint: endpoint, Region: "us-east-1"}})
	registryOf(t, c, "plain.test")
	registryOf(t, c, "ecr.test")
	bell.WantNobody(t)
}

func TestConfigurationDecidesHowToAuthenticate(t *testing.T) {
	const ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	for name, test := range map[string]struct {
		cfg Config
		ecr bool
	}{
		"the name of an ECR host":    {Config{Host: ecr}, true},
		"a region":                   {Config{Host: "mirror.test", ECR: ECRConfig{Region: "us-east-1"}}, true},
		"another name":               {Config{Host: "mirror.test"}, false},
		"ECR Public":                 {Config{Host: "public.ecr.aws"}, false},
		"an ECR host and a password": {Config{Host: ecr, Username: "me", PasswordFile: "/nowhere"}, false},
	} {
		c, _ := newTestClient(t, test.cfg)
		if isECR := registryOf(t, c, test.cfg.Host).ECR() != nil; isECR != test.ecr {
			t.Errorf("%s: authenticates at ECR is %t, want %t", name, isECR, test.ecr)
		}
	}
}

func TestOneTokenServesTwoAccounts(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	one, two := ecrConfig(server.Running), ecrConfig(server.Running)
	two.Host = "210987654321.dkr.ecr.us-east-1.amazonaws.com"
	c, _ := newTestClient(t, one, two)
	for _, cfg := range []Config{one, two} {
		if err := questions["manifest"](t.Context(), registryOf(t, c, cfg.Host), ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Stats().Tokens; n != 1 {
		t.Errorf("%d tokens were issued, want 1", n)
	}
}

func TestSilentECRAPIEndsAfterTheTimeout(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	cfg := ecrConfig(server.Running)
	cfg.Timeout = 50 * time.Millisecond
	c, _ := newTestClient(t, cfg)
	release := server.Inject(ecrtest.Fault{On: ecrtest.API, Hang: true})
	defer release()
	if err := questions["blob"](t.Context(), registryOf(t, c, cfg.Host), someBlob); err == nil {
		t.Error("silence is a token")
	}
}

func TestCloseLeavesNoConnectionOpen(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	var opened atomic.Int64
	closed := make(chan struct{}, 100)
	front := httptest.NewUnstartedServer(server.Server.Registry())
	front.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed <- struct{}{}
		}
	}
	front.Start()
	defer front.Close()
	cfg := Config{Host: server.Host(), Endpoint: front.URL, ECR: ECRConfig{APIEndpoint: front.URL}}
	c, _ := newTestClient(t, cfg)
	if err := questions["manifest"](t.Context(), registryOf(t, c, cfg.Host), ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range opened.Load() {
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Fatal("a connection stays open")
		}
	}
}

func TestCloseEndsCallsOfTheAPI(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	asked := make(chan struct{})
	release := server.Inject(ecrtest.Fault{On: ecrtest.API, Hang: true, Notify: sync.OnceFunc(func() { close(asked) })})
	defer release()
	c, _ := newTestClient(t, ecrConfig(server.Running))
	r := registryOf(t, c, server.Host())
	ended := make(chan error, 1)
	go func() { ended <- questions["manifest"](t.Context(), r, "") }()
	<-asked
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended: // Close waited for the attempt
		if err == nil {
			t.Error("a manifest came without a token")
		}
	case <-time.After(10 * time.Second):
		t.Error("the request still waits for a token")
	}
}
