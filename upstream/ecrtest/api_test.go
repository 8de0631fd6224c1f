package ecrtest_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/smithy-go"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestSDKGetsAToken(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 500e6, time.UTC)
	server, c := start(t, ecrtest.Options{Now: func() time.Time { return now }})
	server.ResetStats()
	out, err := c.api("AKIDLARDERTEST", "us-east-1").GetAuthorizationToken(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	data := out.AuthorizationData[0]
	if want := now.Add(12 * time.Hour); !data.ExpiresAt.Equal(want) {
		t.Errorf("expires at %v, want %v", data.ExpiresAt, want)
	}
	if want := "https://123456789012.dkr.ecr.us-east-1.amazonaws.com"; *data.ProxyEndpoint != want {
		t.Errorf("proxy endpoint %s, want %s", *data.ProxyEndpoint, want)
	}
	if st := server.Stats(); st.Tokens != 1 || st.Requests[ecrtest.API] != 1 {
		t.Errorf("counted %d tokens and %d calls, want 1 of each", st.Tokens, st.Requests[ecrtest.API])
	}
}

func TestAPIRefusesUnknownCallers(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	for _, test := range []struct{ key, region, code string }{
		{"AKIDSTRANGER", "us-east-1", "UnrecognizedClientException"},
		{"AKIDLARDERTEST", "eu-central-1", "InvalidSignatureException"},
	} {
		_, err := c.api(test.key, test.region).GetAuthorizationToken(t.Context(), nil)
		wantAPIError(t, err, test.code)
	}
	req := c.request(http.MethodPost, c.server.Endpoint+"/",
		"X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	a := c.do(req)
	wantStatus(t, a, http.StatusBadRequest)
	wantBody(t, a, `{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`)
}

func TestAPIRefusesUnknownOperations(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	_, err := c.api("AKIDLARDERTEST", "us-east-1").DescribePullThroughCacheRules(t.Context(), &ecr.DescribePullThroughCacheRulesInput{})
	wantAPIError(t, err, "UnknownOperationException")
}

func wantAPIError(t *testing.T, err error, code string) {
	t.Helper()
	var apiErr smithy.APIError
	if !errors.As(err, &apiErr) || apiErr.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}
