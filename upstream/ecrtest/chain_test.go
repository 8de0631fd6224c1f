package ecrtest_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const (
	nodeRole   = "arn:aws:iam::123456789012:role/node"
	otherRole  = "arn:aws:iam::210987654321:role/team/reader"
	larderUser = "arn:aws:iam::123456789012:user/larder"
)

// sdk returns the configuration that the SDK loads by its default chain, in the
// environment of the server and these variables.
func sdk(t *testing.T, server *ecrtest.Running, variables ...map[string]string) aws.Config {
	t.Helper()
	environment := server.Environment()
	for _, more := range variables {
		maps.Copy(environment, more)
	}
	for name, value := range environment {
		t.Setenv(name, value)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithHTTPClient(&http.Client{Transport: buffered{transport}, Timeout: patience}))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// callerIdentity calls GetCallerIdentity.
func callerIdentity(t *testing.T, cfg aws.Config) error {
	t.Helper()
	return second(sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil))
}

// whoIs returns the ARN that STS reports for the credentials of a configuration.
func whoIs(t *testing.T, cfg aws.Config) string {
	t.Helper()
	out, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return *out.Arn
}

// tokenOf returns a token for the credentials of a configuration: the password of the
// user AWS.
func tokenOf(t *testing.T, cfg aws.Config) string {
	t.Helper()
	out, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		t.Fatal(err)
	}
	password, ok := strings.CutPrefix(string(raw), "AWS:")
	if !ok {
		t.Fatalf("the token %q is not for the user AWS", raw)
	}
	return password
}

func TestSDKChainFindsEachKindOfCredentials(t *testing.T) {
	defaultKey := ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}
	file := func(t *testing.T, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		environment func(*testing.T, *ecrtest.Running) map[string]string
		want        string
	}{
		"the default user's key": {
			func(*testing.T, *ecrtest.Running) map[string]string { return defaultKey.Environment() }, larderUser,
		},
		"a session's key": {func(t *testing.T, s *ecrtest.Running) map[string]string {
			key, err := s.AWS().Assume(nodeRole, "by-hand")
			if err != nil {
				t.Fatal(err)
			}
			return key.Environment()
		}, "arn:aws:sts::123456789012:assumed-role/node/by-hand"},
		"a container": {func(t *testing.T, s *ecrtest.Running) map[string]string {
			env, err := s.ContainerEnvironment(nodeRole)
			if err != nil {
				t.Fatal(err)
			}
			return env
		}, "arn:aws:sts::123456789012:assumed-role/node/container"},
		"a container whose authorization is in a file": {func(t *testing.T, s *ecrtest.Running) map[string]string {
			authorization, err := s.AWS().ContainerAuthorization(nodeRole)
			if err != nil {
				t.Fatal(err)
			}
			return map[string]string{
				"AWS_CONTAINER_CREDENTIALS_FULL_URI":     s.Endpoint + "/v1/credentials",
				"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": file(t, authorization),
			}
		}, "arn:aws:sts::123456789012:assumed-role/node/container"},
		"web identity": {func(t *testing.T, _ *ecrtest.Running) map[string]string {
			return map[string]string{
				"AWS_ROLE_ARN": nodeRole, "AWS_ROLE_SESSION_NAME": "pod", "AWS_WEB_IDENTITY_TOKEN_FILE": file(t, "jwt"),
			}
		}, "arn:aws:sts::123456789012:assumed-role/node/pod"},
		"the instance": {func(t *testing.T, s *ecrtest.Running) map[string]string {
			if err := s.AWS().SetInstanceRole(nodeRole); err != nil {
				t.Fatal(err)
			}
			return map[string]string{"AWS_EC2_METADATA_DISABLED": "false"}
		}, "arn:aws:sts::123456789012:assumed-role/node/i-0123456789abcdef0"},
		"a profile that assumes a role": {func(t *testing.T, _ *ecrtest.Running) map[string]string {
			return map[string]string{"AWS_CONFIG_FILE": file(t, "[default]\nsource_profile = base\nrole_arn = "+otherRole+
				"\nexternal_id = larder\nrole_session_name = edge\n"+
				"[profile base]\naws_access_key_id = AKIDLARDERTEST\naws_secret_access_key = secret\n")}
		}, "arn:aws:sts::210987654321:assumed-role/reader/edge"},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := start(t, ecrtest.Options{})
			server.AWS().AddRole(ecrtest.Role{ARN: nodeRole, WebIdentity: "jwt", Policy: ecrtest.Policy{ecrtest.Allow("*")}})
			server.AWS().AddRole(ecrtest.Role{
				ARN: otherRole, Trusts: []string{larderUser}, ExternalID: "larder", Policy: ecrtest.Policy{ecrtest.Allow("*")},
			})
			cfg := sdk(t, server, test.environment(t, server))
			if got := whoIs(t, cfg); got != test.want {
				t.Errorf("the caller is %s, want %s", got, test.want)
			}
			tokenOf(t, cfg)
			call := ecrtest.Call{Principal: test.want, Region: "us-east-1", Action: "ecr:GetAuthorizationToken"}
			if n := server.AWS().Calls()[call]; name != "the default user's key" && n != 1 {
				t.Errorf("%d calls %v, want 1: %v", n, call, server.AWS().Calls())
			}
		})
	}
}

func TestAssumeRoleNeedsTrustAndExternalID(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	cloud := server.AWS()
	const here, there = "arn:aws:iam::123456789012:role/here", "arn:aws:iam::210987654321:role/there"
	const assumes = "arn:aws:iam::123456789012:user/assumes"
	const plain = "arn:aws:iam::123456789012:user/plain"
	keys := map[string]ecrtest.Key{
		assumes: cloud.AddUser(assumes, ecrtest.Policy{ecrtest.Allow("sts:AssumeRole")}),
		plain:   cloud.AddUser(plain, nil),
	}
	for _, test := range []struct {
		name, user, role string
		trusts           []string
		externalID       string
		granted          bool
	}{
		{"trusted by name in one account", plain, here, []string{plain}, "", true},
		{"trusted by name across accounts, without a policy", plain, there, []string{plain}, "", false},
		{"trusted by name across accounts", assumes, there, []string{assumes}, "", true},
		{"account trusted, without a policy", plain, here, []string{"123456789012"}, "", false},
		{"account trusted", assumes, here, []string{"arn:aws:iam::123456789012:root"}, "", true},
		{"not trusted", assumes, here, []string{plain}, "", false},
		{"nobody trusted", assumes, there, nil, "", false},
		{"external ID", assumes, there, []string{assumes}, "larder", true},
		{"wrong external ID", assumes, there, []string{assumes}, "other", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			role := ecrtest.Role{ARN: test.role, Trusts: test.trusts}
			in := &sts.AssumeRoleInput{RoleArn: &test.role, RoleSessionName: aws.String("test")}
			if test.externalID != "" {
				role.ExternalID, in.ExternalId = "larder", &test.externalID
			}
			cloud.AddRole(role)
			out, err := sts.NewFromConfig(sdk(t, server, keys[test.user].Environment())).AssumeRole(t.Context(), in)
			if !test.granted {
				wantAPIError(t, err, "AccessDenied")
				want := "User: " + test.user + " is not authorized to perform: sts:AssumeRole on resource: " + test.role
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if lasts := time.Until(*out.Credentials.Expiration); lasts < 50*time.Minute || lasts > time.Hour {
				t.Errorf("the session lasts %v, want an hour", lasts)
			}
		})
	}
}

func TestSDKAssumesARoleOnce(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	server.AWS().AddRole(ecrtest.Role{ARN: otherRole, Trusts: []string{larderUser}, Policy: ecrtest.Policy{ecrtest.Allow("*")}})
	cfg := sdk(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), otherRole,
		func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "twice" }))
	for range 2 {
		if got, want := whoIs(t, cfg), "arn:aws:sts::210987654321:assumed-role/reader/twice"; got != want {
			t.Errorf("the caller is %s, want %s", got, want)
		}
	}
	call := ecrtest.Call{Principal: larderUser, Region: "us-east-1", Action: "sts:AssumeRole"}
	if n := server.AWS().Calls()[call]; n != 1 {
		t.Errorf("assumed %d times, want once", n)
	}
}

func TestSTSErrorsHaveCodesOfSTS(t *testing.T) {
	clock := ecrtest.NewClock()
	server, _ := start(t, ecrtest.Options{Now: clock.Now})
	server.AWS().AddRole(ecrtest.Role{ARN: nodeRole, WebIdentity: "jwt", Trusts: []string{"*"}})
	expired, err := server.AWS().Assume(nodeRole, "long-ago")
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour)
	stranger := ecrtest.Key{AccessKeyID: "AKIDSTRANGER", SecretAccessKey: "secret"}
	known := ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}
	assume := func(session string, seconds *int32) func(context.Context, *sts.Client) error {
		return func(ctx context.Context, c *sts.Client) error {
			_, err := c.AssumeRole(ctx, &sts.AssumeRoleInput{
				RoleArn: aws.String(nodeRole), RoleSessionName: &session, DurationSeconds: seconds})
			return err
		}
	}
	webIdentity := func(role, token string) func(context.Context, *sts.Client) error {
		return func(ctx context.Context, c *sts.Client) error {
			_, err := c.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
				RoleArn: &role, RoleSessionName: aws.String("pod"), WebIdentityToken: &token})
			return err
		}
	}
	identity := func(ctx context.Context, c *sts.Client) error {
		_, err := c.GetCallerIdentity(ctx, nil)
		return err
	}
	for name, test := range map[string]struct {
		key  ecrtest.Key
		call func(context.Context, *sts.Client) error
		code string
	}{
		"an unknown key":       {stranger, identity, "InvalidClientTokenId"},
		"an expired session":   {expired, identity, "ExpiredToken"},
		"a session's name":     {known, assume("a b", nil), "ValidationError"},
		"a session too long":   {known, assume("ab", aws.Int32(43201)), "ValidationError"},
		"another identity":     {known, webIdentity(nodeRole, "other"), "InvalidIdentityToken"},
		"an unknown role":      {known, webIdentity(otherRole, "jwt"), "AccessDenied"},
		"an unknown operation": {known, sessionToken, "InvalidAction"},
	} {
		t.Run(name, func(t *testing.T) {
			wantAPIError(t, test.call(t.Context(), sts.NewFromConfig(sdk(t, server, test.key.Environment()))), test.code)
		})
	}
}

func sessionToken(ctx context.Context, c *sts.Client) error {
	_, err := c.GetSessionToken(ctx, nil)
	return err
}

func TestCredentialsNeedARole(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	for name, err := range map[string]error{
		"container": second(server.AWS().ContainerAuthorization(nodeRole)),
		"instance":  server.AWS().SetInstanceRole(nodeRole),
		"session":   second(server.AWS().Assume(nodeRole, "test")),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want %v", name, err, fs.ErrNotExist)
		}
	}
	a := c.get(server.Endpoint+"/v1/credentials", "Authorization", "none")
	wantStatus(t, a, http.StatusUnauthorized)
	const roles = "/latest/meta-data/iam/security-credentials/"
	wantStatus(t, c.get(server.Endpoint+roles), http.StatusUnauthorized)
	a = c.do(c.request(http.MethodPut, server.Endpoint+"/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60"))
	wantStatus(t, a, http.StatusOK)
	wantStatus(t, c.get(server.Endpoint+roles, "X-Aws-Ec2-Metadata-Token", a.body), http.StatusNotFound)
}

func second[T any](_ T, err error) error { return err }
