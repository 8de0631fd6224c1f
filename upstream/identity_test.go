package upstream

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

const (
	podRole    = "arn:aws:iam::123456789012:role/pod"
	puller     = "arn:aws:iam::210987654321:role/puller"
	larderUser = "arn:aws:iam::123456789012:user/larder"
)

// fileWith returns the name of a file with this content.
func fileWith(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	writeFile(t, name, content)
	return name
}

// startAWS runs a fake ECR in an AWS that knows podRole, which a pod or the
// instance may have, and puller, which larderUser may assume with an external ID.
func startAWS(t *testing.T, opts ecrtest.Options) *ecrtest.Running {
	t.Helper()
	server, err := ecrtest.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := server.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
		t.Fatal(err)
	}
	all := ecrtest.Policy{ecrtest.Allow("*")}
	server.AWS().AddRole(ecrtest.Role{ARN: podRole, WebIdentity: "jwt", Policy: all})
	server.AWS().AddRole(ecrtest.Role{ARN: puller, Trusts: []string{larderUser}, ExternalID: "0815", Policy: all})
	// Across accounts the repository must allow it too.
	if err := server.SetRepositoryPolicy(repo, ecrtest.Policy{ecrtest.Allow("*").To("*")}); err != nil {
		t.Fatal(err)
	}
	setenv(t, server.Environment())
	t.Setenv("HOME", t.TempDir())
	return server
}

const keyFile = "[default]\naws_access_key_id = AKIDLARDERTEST\naws_secret_access_key = secret\n"

// chains are the ways in which the SDK finds credentials, with their principals.
var chains = map[string]struct {
	prepare   func(*testing.T, *ecrtest.Running)
	identity  ecr.Identity
	principal string
}{
	"environment": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			setenv(t, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
		},
		principal: larderUser,
	},
	"shared credentials file": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", fileWith(t, keyFile))
		},
		principal: larderUser,
	},
	"a profile by the environment": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			t.Setenv("AWS_CONFIG_FILE", fileWith(t, strings.Replace(keyFile, "default", "profile edge", 1)))
			t.Setenv("AWS_PROFILE", "edge")
		},
		principal: larderUser,
	},
	"a profile by the configuration, ahead of the environment": {
		prepare: func(t *testing.T, server *ecrtest.Running) {
			other := server.AWS().AddUser("arn:aws:iam::123456789012:user/other", nil)
			setenv(t, other.Environment())
			t.Setenv("AWS_CONFIG_FILE", fileWith(t, strings.Replace(keyFile, "default", "profile edge", 1)))
		},
		identity:  ecr.Identity{Profile: "edge"},
		principal: larderUser,
	},
	"credential_process": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			answer := fileWith(t, `{"Version":1,"AccessKeyId":"AKIDLARDERTEST","SecretAccessKey":"secret"}`)
			t.Setenv("AWS_CONFIG_FILE", fileWith(t, "[default]\ncredential_process = cat "+answer+"\n"))
		},
		principal: larderUser,
	},
	"a profile that assumes a role": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			t.Setenv("AWS_CONFIG_FILE", fileWith(t, strings.Replace(keyFile, "default", "profile base", 1)+
				"[profile edge]\nsource_profile = base\nrole_arn = "+puller+"\nexternal_id = 0815\nrole_session_name = chained\n"))
		},
		identity:  ecr.Identity{Profile: "edge"},
		principal: "arn:aws:sts::210987654321:assumed-role/puller/chained",
	},
	"web identity": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			t.Setenv("AWS_ROLE_ARN", podRole)
			t.Setenv("AWS_ROLE_SESSION_NAME", "irsa")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", fileWith(t, "jwt"))
		},
		principal: "arn:aws:sts::123456789012:assumed-role/pod/irsa",
	},
	"container endpoint": {
		prepare: func(t *testing.T, server *ecrtest.Running) {
			env, err := server.ContainerEnvironment(podRole)
			if err != nil {
				t.Fatal(err)
			}
			setenv(t, env)
		},
		principal: "arn:aws:sts::123456789012:assumed-role/pod/container",
	},
	"instance metadata": {
		prepare: func(t *testing.T, server *ecrtest.Running) {
			t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
			if err := server.AWS().SetInstanceRole(podRole); err != nil {
				t.Fatal(err)
			}
		},
		principal: "arn:aws:sts::123456789012:assumed-role/pod/i-0123456789abcdef0",
	},
	"SSO cache": {
		prepare:   prepareSSO,
		principal: larderUser,
	},
	"a role on top of the environment": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			setenv(t, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
		},
		identity:  ecr.Identity{RoleARN: puller, ExternalID: "0815"},
		principal: "arn:aws:sts::210987654321:assumed-role/puller/larder",
	},
	"a role on top of a profile": {
		prepare: func(t *testing.T, _ *ecrtest.Running) {
			t.Setenv("AWS_CONFIG_FILE", fileWith(t, strings.Replace(keyFile, "default", "profile edge", 1)))
		},
		identity:  ecr.Identity{Profile: "edge", RoleARN: puller, ExternalID: "0815", SessionName: "edge-7"},
		principal: "arn:aws:sts::210987654321:assumed-role/puller/edge-7",
	},
}

// prepareSSO sets up a profile that logged in by "aws sso login", and the portal
// that gives keys for it.
func prepareSSO(t *testing.T, _ *ecrtest.Running) {
	t.Helper()
	const start = "https://login.example.com/start"
	portal := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Sso_bearer_token") != "logged-in" || r.URL.Query().Get("role_name") != "Puller" {
			t.Errorf("the portal was asked %s %v", r.URL, r.Header)
		}
		fmt.Fprintf(w, `{"roleCredentials":{"accessKeyId":"AKIDLARDERTEST","secretAccessKey":"secret","sessionToken":"","expiration":%d}}`,
			time.Now().Add(time.Hour).UnixMilli())
	})
	t.Setenv("AWS_ENDPOINT_URL_SSO", portal.URL)
	t.Setenv("AWS_CONFIG_FILE", fileWith(t, "[default]\nsso_start_url = "+start+
		"\nsso_region = us-east-1\nsso_account_id = 123456789012\nsso_role_name = Puller\n"))
	folder := filepath.Join(os.Getenv("HOME"), ".aws", "sso", "cache")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	cached, err := json.Marshal(map[string]string{
		"startUrl": start, "region": "us-east-1", "accessToken": "logged-in",
		"expiresAt": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	})
	if err != nil {
		t.Fatal(err)
	}
	name := sha1.Sum([]byte(start)) // as the SDK names it
	writeFile(t, filepath.Join(folder, hex.EncodeToString(name[:])+".json"), string(cached))
}

func TestTokensAreForTheConfiguredIdentity(t *testing.T) {
	for name, test := range chains {
		t.Run(name, func(t *testing.T) {
			server := startAWS(t, ecrtest.Options{})
			test.prepare(t, server)
			c, _ := newTestClient(t, Config{Host: server.Host(), Endpoint: server.Endpoint, ECR: ECRConfig{Identity: test.identity}})
			if _, _, err := registryOf(t, c, server.Host()).Manifest(t.Context(), repo, "v1", false); err != nil {
				t.Fatal(err)
			}
			want := ecrtest.Call{Principal: test.principal, Region: "us-east-1", Action: "ecr:GetAuthorizationToken"}
			if got := server.AWS().Calls(); got[want] != 1 {
				t.Errorf("calls: %v, want one %v", got, want)
			}
		})
	}
}

func TestRoleThatMayNotBeAssumedSaysWhatWouldAllowIt(t *testing.T) {
	server := startAWS(t, ecrtest.Options{})
	setenv(t, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	c, _ := newTestClient(t, Config{Host: server.Host(), Endpoint: server.Endpoint,
		ECR: ECRConfig{Identity: ecr.Identity{RoleARN: puller, ExternalID: "wrong"}}})
	_, _, err := registryOf(t, c, server.Host()).Manifest(t.Context(), repo, "v1", false)
	upstreamtest.WantNoCredentials(t, err, "add to the trust policy of "+puller+`: {"Effect":"Allow","Principal":{"AWS":"`+larderUser+`"},"Action":"sts:AssumeRole"}`)
}

// After keys that AWS does not know, credentials are looked up again: they may have
// been replaced.
func TestReplacedCredentialsAreFoundAfterARefusal(t *testing.T) {
	server := startAWS(t, ecrtest.Options{})
	file := fileWith(t, strings.Replace(keyFile, "AKIDLARDERTEST", "AKIDOLD", 1))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	clock := ecrtest.NewClock()
	log := new(upstreamtest.Log)
	c := NewClient(Options{Log: log.Logger(), Now: clock.Now, Lookup: func(host string) (Config, bool) {
		return Config{Host: host, Endpoint: server.Endpoint}, true
	}})
	defer c.Close()
	r := registryOf(t, c, server.Host())
	_, _, err := r.Manifest(t.Context(), repo, "v1", false)
	upstreamtest.WantNoCredentials(t, err, "UnrecognizedClientException")
	writeFile(t, file, keyFile)
	clock.Advance(time.Second)
	if _, _, err := r.Manifest(t.Context(), repo, "v1", false); err != nil {
		t.Error(err)
	}
	log.WantLines(t, "no ECR token", 1)
	log.WantLines(t, "ECR gives tokens again", 1)
}

// There are three accounts, two identities and two regions: each account's registry
// in each region is asked as one of the identities.
func TestColdStartAsksForOneTokenPerIdentityAndRegion(t *testing.T) {
	accounts := []string{"111111111111", "222222222222", "333333333333"}
	regions := []string{"us-east-1", "eu-central-1"}
	first := startAWS(t, ecrtest.Options{Account: accounts[0], Region: regions[0]})
	cloud := first.AWS()
	all := ecrtest.Policy{ecrtest.Allow("*")}
	var configs []Config
	for i, account := range accounts {
		for j, region := range regions {
			server := first
			if i+j > 0 {
				server = startAWS(t, ecrtest.Options{Account: account, Region: region, AWS: cloud})
			}
			cfg := Config{Host: server.Host(), Endpoint: server.Endpoint} // the API is the environment's, which is all of AWS
			if i == 1 {
				cfg.ECR.Identity = ecr.Identity{RoleARN: podRole, SessionName: "larder"}
			}
			configs = append(configs, cfg)
		}
	}
	cloud.AddRole(ecrtest.Role{ARN: podRole, Trusts: []string{"*"}, Policy: all})
	setenv(t, cloud.AddUser("arn:aws:iam::111111111111:user/node", all).Environment())
	c, _ := newTestClient(t, configs...)
	// So many concurrent connections may take longer than the dial timeout.
	c.transports.For(mustURL(t, "http://127.0.0.1")).DialContext = new(net.Dialer).DialContext
	var clients sync.WaitGroup
	begin := make(chan struct{})
	for i := range 500 {
		r := registryOf(t, c, configs[i%len(configs)].Host)
		clients.Go(func() {
			<-begin
			if _, _, err := r.Manifest(t.Context(), repo, "v1", i%7 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	clients.Wait()

	tokens := make(map[ecrtest.Call]int)
	for call, n := range cloud.Calls() {
		if call.Action == "ecr:GetAuthorizationToken" {
			tokens[call] = n
		}
	}
	want := make(map[ecrtest.Call]int)
	for _, principal := range []string{"arn:aws:iam::111111111111:user/node", "arn:aws:sts::123456789012:assumed-role/pod/larder"} {
		for _, region := range regions {
			want[ecrtest.Call{Principal: principal, Region: region, Action: "ecr:GetAuthorizationToken"}] = 1
		}
	}
	if diff := cmp.Diff(want, tokens); diff != "" {
		t.Errorf("calls for tokens (-want +got):\n%s", diff)
	}
}
