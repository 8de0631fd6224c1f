package upstream

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/probe"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func TestConnectionTellsTheStageThatFailed(t *testing.T) {
	withTLS := httptest.NewUnstartedServer(http.NotFoundHandler())
	withTLS.Config.ErrorLog = log.New(io.Discard, "", 0)
	withTLS.StartTLS()
	t.Cleanup(withTLS.Close)
	plain := serve(t, http.NotFound)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel's backlog accepts connections
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	dead := serve(t, http.NotFound)
	dead.Close()
	for name, test := range map[string]struct {
		endpoint string
		stage    probe.Stage
	}{
		"answers":                  {plain.URL, ""},
		"a name that is not there": {"https://registry.larder.invalid", probe.StageDNS},
		"nobody listens":           {dead.URL, probe.StageTCP},
		"a certificate of nobody":  {withTLS.URL, probe.StageTLS},
		"no TLS":                   {strings.Replace(plain.URL, "http:", "https:", 1), probe.StageTLS},
		"no answer":                {"http://" + silent.Addr().String(), probe.StageAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newTestClient(t, Config{Host: "registry.test", Endpoint: test.endpoint})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			got := registryOf(t, c, "registry.test").Diagnosis().Connect(ctx)
			if got.Stage != test.stage || (got.Err == nil) != (test.stage == "") {
				t.Errorf("it failed at %q with %v, want %q", got.Stage, got.Err, test.stage)
			}
		})
	}
}

func TestConnectSendsNoCredentials(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r, _ := startPlain(t, Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")},
		func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") != "" || req.URL.Path != "/v2/" {
				t.Errorf("GET %s with Authorization %q", req.URL.Path, req.Header.Get("Authorization"))
			}
			w.Header().Set("Date", at.Format(http.TimeFormat))
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
	got := r.Diagnosis().Connect(t.Context())
	if got.Err != nil || got.Status != http.StatusUnauthorized || !got.Date.Equal(at) || got.Here.Before(at) ||
		got.Remote != siteOf(r).endpoint.Host || got.TLS != "" || got.Proxy != "" || len(got.Addresses) != 0 {
		t.Errorf("got %+v", got)
	}
	account, err := r.Diagnosis().Account(t.Context())
	if err != nil || account.Name != "me" || !strings.HasSuffix(account.Source, "/password") {
		t.Errorf("the account is %+v, %v", account, err)
	}
}

func TestGrantIsForTheRepository(t *testing.T) {
	var scope string
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			scope = req.URL.Query().Get("scope")
			_, _ = w.Write([]byte(`{"token":"good"}`))
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+req.Host+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	grant, err := r.Diagnosis().Grant(t.Context(), "team/app")
	var refusal *reply.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusUnauthorized {
		t.Errorf("a registry whose /v2/ refuses its own token: %+v, %v", grant, err)
	}
	if scope != "repository:team/app:pull" {
		t.Errorf("the token is for %q", scope)
	}
}

func TestLoginAloneAsksForNoRepository(t *testing.T) {
	var query string
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/token":
			query = req.URL.RawQuery
			_, _ = w.Write([]byte(`{"token":"good","expires_in":300}`))
		case req.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+req.Host+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	grant, err := r.Diagnosis().Grant(t.Context(), "")
	if err != nil || grant.Kind != "bearer token" || time.Until(grant.Until) < time.Minute {
		t.Errorf("got %+v, %v", grant, err)
	}
	if query != "service=s" {
		t.Errorf("the token service was asked %q", query)
	}
}

func TestBlobIsLocatedWithoutItsSignature(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	place, err := server.Diagnosis().Locate(t.Context(), repo, dgst)
	if err != nil || place != server.StorageURL {
		t.Errorf("got %q, %v; want %q", place, err, server.StorageURL)
	}
	if c := server.Diagnosis().ConnectTo(t.Context(), place); c.Err != nil {
		t.Errorf("connect to %s: %v", place, c.Err)
	}
	r, _ := startPlain(t, Config{}, content)
	if place, err := r.Diagnosis().Locate(t.Context(), repo, someBlob); err != nil || place != r.Diagnosis().BaseURL() {
		t.Errorf("of a registry that sends blobs itself: %q, %v", place, err)
	}
}

func TestLocateRefusesForbiddenAddresses(t *testing.T) {
	r, _ := startPlain(t, Config{}, redirect("http://169.254.169.254"))
	var refused *guard.RefusedError
	if place, err := r.Diagnosis().Locate(t.Context(), repo, someBlob); !errors.As(err, &refused) {
		t.Errorf("got %q, %v", place, err)
	}
}

func TestCallerIsTheIdentityThatSTSReturns(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	t.Setenv("AWS_ENDPOINT_URL_STS", server.Endpoint)
	caller, err := server.ECR().Diagnosis().Caller(t.Context())
	if err != nil || caller.ARN != "arn:aws:iam::123456789012:user/larder" || caller.Source != "EnvConfigCredentials" {
		t.Errorf("got %+v, %v", caller, err)
	}
	server.Inject(ecrtest.Fault{On: ecrtest.STS, Status: http.StatusForbidden})
	if caller, err = server.ECR().Diagnosis().Caller(t.Context()); err == nil || caller.Source == "" || caller.ARN != "" {
		t.Errorf("without STS: %+v, %v", caller, err)
	}
}

func TestServicesAreOfTheHostsKind(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	for host, want := range map[string][2]string{
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com":   {"https://api.ecr.eu-central-1.amazonaws.com", "https://sts.eu-central-1.amazonaws.com"},
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com": {"https://api.ecr-fips.us-east-1.amazonaws.com", "https://sts-fips.us-east-1.amazonaws.com"},
		"123456789012.dkr-ecr.us-east-1.on.aws":             {"https://ecr.us-east-1.api.aws", "https://sts.us-east-1.api.aws"},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":  {"https://api.ecr.cn-north-1.amazonaws.com.cn", "https://sts.cn-north-1.amazonaws.com.cn"},
	} {
		c, _ := newTestClient(t, Config{Host: host})
		got, err := registryOf(t, c, host).ECR().Diagnosis().Services(t.Context())
		if err != nil || len(got) != 2 || got[0] != (ecr.Service{Name: "ecr-api", URL: want[0]}) || got[1] != (ecr.Service{Name: "sts", URL: want[1]}) {
			t.Errorf("%s: %v, %v; want %v", host, got, err, want)
		}
	}
}
