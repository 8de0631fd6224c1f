package ecr

import (
	"errors"
	"io/fs"
	"net/http"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestCallerIsFoundAmongExcludedPrincipals(t *testing.T) {
	const (
		user    = "arn:aws:iam::123456789012:user/ci/larder"
		session = "arn:aws:sts::123456789012:assumed-role/pull/i-0123456789abcdef0"
		china   = "arn:aws-cn:sts::123456789012:assumed-role/pull/node-1"
	)
	for _, test := range []struct {
		caller, principal string
		is                bool
	}{
		{user, user, true},
		{user, "arn:aws:iam::123456789012:user/larder", false},
		{user, "arn:aws:iam::123456789012:role/larder", false},
		{session, "arn:aws:iam::123456789012:role/pull", true},
		{session, "arn:aws:iam::123456789012:role/nodes/eks/pull", true},
		{session, "arn:aws:iam::123456789012:role/pull-2", false},
		{session, "arn:aws:iam::123456789012:role/pull/i-0123456789abcdef0", false},
		{session, "arn:aws:iam::210987654321:role/pull", false},
		{session, "arn:aws:iam::123456789012:user/pull", false},
		{china, "arn:aws-cn:iam::123456789012:role/pull", true},
		{china, "arn:aws:iam::123456789012:role/pull", false},
		{session, "", false},
		{session, "role/pull", false},
		{"", "", false},
	} {
		want := ""
		if test.is {
			want = test.principal
		}
		others := []string{"arn:aws:iam::123456789012:role/other", test.principal}
		if got := (Caller{ARN: test.caller}).among(others); got != want {
			t.Errorf("%s among %q: got %q", test.caller, others, got)
		}
	}
}

func TestPullTimeExclusionIsThatOfTheCredentials(t *testing.T) {
	server := startECR(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", server.Endpoint)
	const own = "arn:aws:iam::123456789012:user/larder"
	want := func(principal string) {
		t.Helper()
		got, err := server.PullTimeExclusion(t.Context())
		if err != nil || got != principal || server.Excluded() != principal {
			t.Errorf("got %q, %v, then %q; want %q", got, err, server.Excluded(), principal)
		}
	}
	want("")
	if n := server.AWS().Calls()[ecrtest.Call{Principal: own, Region: "us-east-1", Action: "sts:GetCallerIdentity"}]; n != 0 {
		t.Errorf("STS was asked %d times, though nobody is excluded", n)
	}
	server.SetPullTimeExclusions("arn:aws:iam::123456789012:role/other")
	want("")
	server.SetPullTimeExclusions("arn:aws:iam::123456789012:role/other", own)
	want(own)
	remove := server.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "ListPullTimeUpdateExclusions", Status: http.StatusBadRequest, Code: "AccessDeniedException"})
	if _, err := server.PullTimeExclusion(t.Context()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("denied: %v", err)
	}
	if server.Excluded() != own {
		t.Error("without an answer, the last one was forgotten")
	}
	remove()
	server.SetPullTimeExclusions()
	want("")
}

// ECR shows the list of the credentials' account, which is about another registry.
func TestPullTimeExclusionOfAnotherAccountIsUnknown(t *testing.T) {
	server := startECR(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", server.Endpoint)
	const caller = "arn:aws:iam::210987654321:user/larder"
	ecrtest.New(ecrtest.Options{AWS: server.AWS(), Account: "210987654321"}).SetPullTimeExclusions(caller)
	key := server.AWS().AddUser(caller, ecrtest.Policy{ecrtest.Allow("*")})
	for name, value := range key.Environment() {
		t.Setenv(name, value)
	}
	if got, err := server.PullTimeExclusion(t.Context()); err != nil || got != "" {
		t.Errorf("got %q, %v", got, err)
	}
}
