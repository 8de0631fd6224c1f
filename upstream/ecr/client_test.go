package ecr

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// recordingClient records the hosts that AWS's SDK asks, and has no network.
type recordingClient struct {
	mu    sync.Mutex // guards what follows
	hosts []string
}

var errNoNetwork = errors.New("there is no network here")

func (c *recordingClient) Do(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts = append(c.hosts, req.URL.Host)
	return nil, errNoNetwork
}

func TestEndpointsOfAWSAreOfTheRegistrysKind(t *testing.T) {
	role := func(partition string) Identity {
		return Identity{RoleARN: "arn:" + partition + ":iam::123456789012:role/puller"}
	}
	for _, test := range []struct {
		host     string
		identity Identity
		region   string // by the environment
		endpoint string
		want     string
	}{
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com", Identity{}, "", "", "api.ecr.eu-west-1.amazonaws.com"},
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com", Identity{}, "us-east-1", "", "api.ecr.eu-west-1.amazonaws.com"},
		{"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Identity{}, "", "", "api.ecr-fips.us-east-1.amazonaws.com"},
		{"123456789012.dkr-ecr.us-east-1.on.aws", Identity{}, "", "", "ecr.us-east-1.api.aws"},
		{"123456789012.dkr-ecr-fips.us-east-1.on.aws", Identity{}, "", "", "ecr-fips.us-east-1.api.aws"},
		{"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", Identity{}, "", "", "api.ecr.us-gov-west-1.amazonaws.com"},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Identity{}, "", "", "api.ecr.cn-north-1.amazonaws.com.cn"},
		{"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", Identity{}, "", "", "api.ecr.eusc-de-east-1.amazonaws.eu"},
		{"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", Identity{}, "", "", "api.ecr.us-iso-east-1.c2s.ic.gov"},
		{"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", Identity{}, "", "", "api.ecr.us-isob-east-1.sc2s.sgov.gov"},
		{"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", Identity{}, "", "", "api.ecr.eu-isoe-west-1.cloud.adc-e.uk"},
		{"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", Identity{}, "", "", "api.ecr.us-isof-south-1.csp.hci.ic.gov"},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", Identity{}, "", "https://vpce-1.api.ecr.us-east-1.vpce.amazonaws.com", "vpce-1.api.ecr.us-east-1.vpce.amazonaws.com"},
		{"123456789012.dkr-ecr-fips.us-east-1.on.aws", Identity{}, "", "https://vpce-1.api.ecr.us-east-1.vpce.amazonaws.com", "vpce-1.api.ecr.us-east-1.vpce.amazonaws.com"},
		{"public.ecr.aws", Identity{}, "eu-west-1", "", "api.ecr-public.us-east-1.amazonaws.com"},
		{"ecr-public.aws.com", Identity{}, "", "", "ecr-public.us-east-1.api.aws"},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", role("aws"), "", "", "sts.us-east-1.amazonaws.com"},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", role("aws"), "eu-west-1", "", "sts.eu-west-1.amazonaws.com"},
		{"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", role("aws"), "", "", "sts-fips.us-east-1.amazonaws.com"},
		{"123456789012.dkr-ecr.us-east-1.on.aws", role("aws"), "", "", "sts.us-east-1.api.aws"},
		{"123456789012.dkr-ecr-fips.us-east-1.on.aws", role("aws"), "", "", "sts-fips.us-east-1.api.aws"},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", role("aws-cn"), "us-east-1", "", "sts.cn-north-1.amazonaws.com.cn"},
		{"public.ecr.aws", role("aws"), "eu-west-1", "", "sts.eu-west-1.amazonaws.com"},
	} {
		synctest.Test(t, func(t *testing.T) { // in which the SDK's pauses take no time
			upstreamtest.SetAWS(t, "AKIDLARDERTEST")
			t.Setenv("AWS_REGION", test.region)
			asked := new(recordingClient)
			cfg := configOf(t, test.host)
			cfg.Timeout, cfg.APIEndpoint, cfg.Identity = time.Minute, test.endpoint, test.identity
			_, err := newTestClient(t, asked).region(cfg).tokens.ask(t.Context())
			upstreamtest.WantNoCredentials(t, err, errNoNetwork.Error())
			if len(asked.hosts) == 0 || asked.hosts[0] != test.want {
				t.Errorf("%s as %v, from %q: asked %v, want %s", test.host, test.identity, test.region, asked.hosts, test.want)
			}
		})
	}
}

func TestIdentitiesDoNotShareTokens(t *testing.T) {
	const role = "arn:aws:iam::210987654321:role/puller"
	cfg := configOf(t, "123456789012.dkr.ecr.us-east-1.amazonaws.com")
	c := newTestClient(t, nil)
	seen := make(map[*tokens]Identity)
	for _, identity := range []Identity{
		{}, {Profile: "a"}, {Profile: "b"}, {RoleARN: role}, {Profile: "a", RoleARN: role},
		{RoleARN: role, ExternalID: "0815"}, {RoleARN: role, SessionName: "edge"},
	} {
		cfg.Identity = identity
		source := c.region(cfg).tokens
		if other, ok := seen[source]; ok {
			t.Errorf("%+v and %+v share their tokens", identity, other)
		}
		seen[source] = identity
		if c.region(cfg).tokens != source {
			t.Errorf("%+v does not share its own", identity)
		}
	}
}

func TestAccountsOfARegionShareAToken(t *testing.T) {
	base := configOf(t, "111111111111.dkr.ecr.us-east-1.amazonaws.com")
	api := configOf(t, "222222222222.dkr.ecr.us-east-1.amazonaws.com")
	api.APIEndpoint = "https://vpce-1.api.ecr.us-east-1.vpce.amazonaws.com"
	for label, test := range map[string]struct {
		other  Config
		shared bool
	}{
		"another account":  {configOf(t, "222222222222.dkr.ecr.us-east-1.amazonaws.com"), true},
		"a region alone":   {Config{Host: name.ECR{Region: "us-east-1"}}, true},
		"another region":   {configOf(t, "111111111111.dkr.ecr.us-east-2.amazonaws.com"), false},
		"FIPS":             {configOf(t, "111111111111.dkr.ecr-fips.us-east-1.amazonaws.com"), false},
		"another API":      {api, false},
		"ECR Public's API": {configOf(t, "public.ecr.aws"), false},
	} {
		c := newTestClient(t, nil)
		if shared := c.region(base) == c.region(test.other); shared != test.shared {
			t.Errorf("%s: shares the token is %t, want %t", label, shared, test.shared)
		}
	}
}

// repeatingClient answers as AWS does to a wrong signature, with what was signed.
type repeatingClient struct{}

func (repeatingClient) Do(req *http.Request) (*http.Response, error) {
	token := req.Header.Get("X-Amz-Security-Token")
	body := fmt.Sprintf(`{"__type":"InvalidSignatureException","message":"the canonical request is x-amz-security-token:%s, and %s"}`, token, token)
	return &http.Response{
		StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: req,
	}, nil
}

func TestErrorsOfAWSHoldNoSessionToken(t *testing.T) {
	for _, host := range []string{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "public.ecr.aws"} {
		upstreamtest.SetAWS(t, "AKIDLARDERTEST")
		t.Setenv("AWS_SESSION_TOKEN", "hunter2")
		r := newTestClient(t, repeatingClient{}).region(configOf(t, host))
		_, tokenErr := r.tokens.ask(t.Context())
		errs := []error{tokenErr}
		if host != "public.ecr.aws" {
			_, err := readImages(t.Context(), r.api, nil, "app")
			errs = append(errs, err)
		}
		for _, err := range errs {
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "the canonical request is") {
				t.Errorf("%s: got %v", host, err)
			}
		}
	}
}

func TestErrorShowsNothingThatACredentialProcessWrote(t *testing.T) {
	for name, test := range map[string]struct{ command, text string }{
		"no JSON":      {`echo '{"Version":1,"SecretAccessKey":"hunter2"'`, "credential_process: its output is not credentials"},
		"a number":     {`echo '{"Version":"hunter2"}'`, "credential_process: its output is not credentials"},
		"no time":      {`echo '{"Version":1,"Expiration":"hunter2"}'`, "credential_process: its output is not credentials"},
		"a failed run": {`echo hunter2; exit 3`, "exit status 3"},
		"no key":       {`echo '{"Version":1,"SecretAccessKey":"hunter2"}'`, "missing AccessKeyId"},
	} {
		t.Run(name, func(t *testing.T) {
			upstreamtest.SetAWS(t, "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			script := filepath.Join(t.TempDir(), "script")
			profile := filepath.Join(t.TempDir(), "config")
			for file, content := range map[string]string{script: test.command, profile: "[default]\ncredential_process = sh " + script + "\n"} {
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("AWS_CONFIG_FILE", profile)
			cfg := configOf(t, "123456789012.dkr.ecr.us-east-1.amazonaws.com")
			r := newTestClient(t, nil).Registry(cfg, pace.NewLimiter(cfg.Name, 0))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+cfg.Name, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Authorize(t.Context(), req, repo)
			upstreamtest.WantNoCredentials(t, err, test.text)
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the output is shown: %v", err)
			}
		})
	}
}
