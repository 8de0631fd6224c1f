package ecrtest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const (
	pullerUser = "arn:aws:iam::210987654321:user/puller"
	ownUser    = "arn:aws:iam::123456789012:user/own"
	teamApp    = "arn:aws:ecr:us-east-1:123456789012:repository/team/app"
)

func denial(user, action, resource, reason string) string {
	return "User: " + user + " is not authorized to perform: " + action + " on resource: " + resource + " " + reason
}

func TestIdentityAndRepositoryPoliciesDecide(t *testing.T) {
	const (
		get            = "ecr:BatchGetImage"
		noIdentity     = "because no identity-based policy allows the ecr:BatchGetImage action"
		noResource     = "because no resource-based policy allows the ecr:BatchGetImage action"
		identityDenies = "with an explicit deny in an identity-based policy"
		resourceDenies = "with an explicit deny in a resource-based policy"
	)
	pulls := ecrtest.Policy{ecrtest.Allow(ecrtest.PullActions()...)}
	only := func(resource string) ecrtest.Policy {
		return ecrtest.Policy{ecrtest.Allow("ecr:GetAuthorizationToken"), ecrtest.Allow(get).On(resource)}
	}
	for name, test := range map[string]struct {
		user       string
		own        ecrtest.Policy
		repository ecrtest.Policy
		reason     string // of the denial; empty if the pull is allowed
	}{
		"own account":                       {ownUser, pulls, nil, ""},
		"own account, by pattern":           {ownUser, only("arn:aws:ecr:*:123456789012:repository/team/*"), nil, ""},
		"own account, another repository":   {ownUser, only(teamApp + "2"), nil, noIdentity},
		"own account, no policy":            {ownUser, only(teamApp + "2"), ecrtest.Policy{ecrtest.Allow(get).To("123456789012")}, noIdentity},
		"own account, by the repository":    {ownUser, only(teamApp + "2"), ecrtest.Policy{ecrtest.Allow(get).To(ownUser)}, ""},
		"denied by identity":                {ownUser, append(ecrtest.Policy{ecrtest.Deny("ecr:Batch*")}, pulls...), nil, identityDenies},
		"denied by the repository":          {ownUser, pulls, ecrtest.Policy{ecrtest.Deny(get).To("*")}, resourceDenies},
		"other account":                     {pullerUser, pulls, nil, noResource},
		"other account, another principal":  {pullerUser, pulls, ecrtest.Policy{ecrtest.Allow(get).To(ownUser)}, noResource},
		"other account, another action":     {pullerUser, pulls, ecrtest.Policy{ecrtest.Allow("ecr:ListImages").To("*")}, noResource},
		"other account, allowed by account": {pullerUser, pulls, ecrtest.Policy{ecrtest.Allow(get).To("arn:aws:iam::210987654321:root")}, ""},
		"other account, without its own":    {pullerUser, only("none"), ecrtest.Policy{ecrtest.Allow(get).To("*")}, noIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := start(t, ecrtest.Options{})
			if _, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if err := server.SetRepositoryPolicy("team/app", test.repository); err != nil {
				t.Fatal(err)
			}
			key := server.AWS().AddUser(test.user, test.own)
			c.password = tokenOf(t, sdk(t, server, key.Environment()))
			a := c.registry(http.MethodGet, "/v2/team/app/manifests/v1")
			if test.reason == "" {
				wantStatus(t, a, http.StatusOK)
				return
			}
			wantStatus(t, a, http.StatusForbidden)
			wantBody(t, a, errorBody("DENIED", denial(test.user, get, teamApp, test.reason)))
			a = c.registry(http.MethodHead, "/v2/team/app/manifests/v1")
			wantStatus(t, a, http.StatusForbidden)
			wantBody(t, a, "")
		})
	}
}

func TestEachRequestNeedsItsAction(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	blob := c.addBlob(ecrtest.Bytes([]byte("hello")))
	const reason = "because no identity-based policy allows the "
	for path, action := range map[string]string{
		"GET /v2/team/app/manifests/v1":         "ecr:BatchGetImage",
		"GET /v2/team/app/referrers/" + absent:  "ecr:BatchGetImage",
		"GET /v2/team/app/tags/list":            "ecr:ListImages",
		"GET " + blob:                           "ecr:GetDownloadUrlForLayer",
		"HEAD " + blob:                          "ecr:BatchCheckLayerAvailability",
		"POST ecr GetLifecyclePolicy":           "ecr:GetLifecyclePolicy",
		"POST ecr DescribeImages":               "ecr:DescribeImages",
		"POST ecr GetAuthorizationToken":        "ecr:GetAuthorizationToken",
		"GET /v2/team/none/manifests/v1 absent": "ecr:BatchGetImage",
	} {
		t.Run(path, func(t *testing.T) {
			// Everything but this one action is allowed.
			key := server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow("*")})
			cfg := sdk(t, server, key.Environment())
			c.password = tokenOf(t, cfg)
			server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow("*").On("none"), ecrtest.Deny("none")})
			method, rest, _ := strings.Cut(path, " ")
			if operation, ok := strings.CutPrefix(rest, "ecr "); ok {
				err := callECR(t, ecr.NewFromConfig(cfg), operation)
				wantAPIError(t, err, "AccessDeniedException")
				resource := teamApp
				if operation == "GetAuthorizationToken" {
					resource = "*"
				}
				if want := denial(ownUser, action, resource, reason+action+" action"); !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				return
			}
			rest, absent := strings.CutSuffix(rest, " absent")
			a := c.registry(method, rest)
			wantStatus(t, a, http.StatusForbidden)
			if resource := teamApp; method == http.MethodGet && !absent {
				wantBody(t, a, errorBody("DENIED", denial(ownUser, action, resource, reason+action+" action")))
			}
		})
	}
}

// callECR calls an operation of the ECR API about team/app.
func callECR(t *testing.T, c *ecr.Client, operation string) error {
	t.Helper()
	repo := aws.String("team/app")
	switch operation {
	case "GetLifecyclePolicy":
		return second(c.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: repo}))
	case "DescribeImages":
		return second(c.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: repo}))
	case "GetAuthorizationToken":
		return second(c.GetAuthorizationToken(t.Context(), nil))
	}
	t.Fatalf("no call of %s", operation)
	return nil
}

func TestTokenIsValidForTheAccountsOfItsRegion(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	neighbour, _ := start(t, ecrtest.Options{AWS: server.AWS(), Account: "210987654321"})
	abroad, _ := start(t, ecrtest.Options{AWS: server.AWS(), Region: "eu-west-1"})
	for _, s := range []*ecrtest.Running{server, neighbour, abroad} {
		if _, err := s.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte(s.Host())); err != nil {
			t.Fatal(err)
		}
	}
	if err := neighbour.SetRepositoryPolicy("team/app", ecrtest.Policy{ecrtest.Allow("*").To("123456789012")}); err != nil {
		t.Fatal(err)
	}
	get := func(endpoint, host string) answer {
		req := c.request(http.MethodGet, endpoint+"/v2/team/app/manifests/v1")
		req.Host = host
		req.SetBasicAuth("AWS", c.password)
		return c.do(req)
	}
	wantBody(t, get(neighbour.Endpoint, ""), neighbour.Host())
	wantBody(t, get(server.Endpoint, neighbour.Host()), neighbour.Host())
	wantBody(t, get(server.Endpoint, "210987654321.dkr-ecr.us-east-1.on.aws"), neighbour.Host())
	wantBody(t, get(server.Endpoint, "999999999999.dkr.ecr.us-east-1.amazonaws.com"), server.Host())
	wantStatus(t, get(abroad.Endpoint, ""), http.StatusUnauthorized)
	neighbour.ExpireTokens()
	wantStatus(t, get(server.Endpoint, ""), http.StatusForbidden)

	// One endpoint serves the API of every region that has a registry.
	cfg := sdk(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	cfg.Region = "eu-west-1"
	c.password = tokenOf(t, cfg)
	wantBody(t, get(abroad.Endpoint, ""), abroad.Host())
	cfg.Region = "us-east-1"
	c.password = tokenOf(t, cfg)
	wantBody(t, get(server.Endpoint, ""), server.Host())
	want := map[ecrtest.Call]int{
		{Principal: larderUser, Region: "us-east-1", Action: "ecr:GetAuthorizationToken"}: 4, // three of them by start
		{Principal: larderUser, Region: "eu-west-1", Action: "ecr:GetAuthorizationToken"}: 1,
	}
	if diff := cmp.Diff(want, server.AWS().Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
