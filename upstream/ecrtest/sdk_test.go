package ecrtest_test

import (
	"cmp"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestSDKClientsRunUnmodified(t *testing.T) {
	server, _ := startPublic(t, ecrtest.Options{})
	environment := sdk(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	for name, call := range map[string]func(endpoint *string) error{
		"AWS_ENDPOINT_URL_ECR": func(endpoint *string) error {
			c := ecr.NewFromConfig(environment, func(o *ecr.Options) { o.BaseEndpoint = cmp.Or(endpoint, o.BaseEndpoint) })
			return second(c.GetAuthorizationToken(t.Context(), nil))
		},
		"AWS_ENDPOINT_URL_ECR_PUBLIC": func(endpoint *string) error {
			c := ecrpublic.NewFromConfig(environment, func(o *ecrpublic.Options) { o.BaseEndpoint = cmp.Or(endpoint, o.BaseEndpoint) })
			return second(c.GetAuthorizationToken(t.Context(), nil))
		},
		"AWS_ENDPOINT_URL_STS": func(endpoint *string) error {
			c := sts.NewFromConfig(environment, func(o *sts.Options) { o.BaseEndpoint = cmp.Or(endpoint, o.BaseEndpoint) })
			return second(c.GetCallerIdentity(t.Context(), nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := call(nil); err != nil {
				t.Errorf("endpoint from the environment: %v", err)
			}
			// Nothing listens at the address of the variable; the configuration has precedence.
			t.Setenv(name, "http://127.0.0.1:1")
			if err := call(&server.Endpoint); err != nil {
				t.Errorf("endpoint from the configuration: %v", err)
			}
		})
	}
}

func TestSkewedSignatureIsRefused(t *testing.T) {
	clock := ecrtest.NewClock() // differs from the clock of the SDK
	server, err := ecrtest.Start(ecrtest.Options{Now: clock.Now, MaxSkew: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, server)
	for _, test := range []struct {
		ahead time.Duration
		code  string
	}{
		{-4 * time.Minute, ""}, {4 * time.Minute, ""},
		{-6 * time.Minute, "InvalidSignatureException"}, {6 * time.Minute, "InvalidSignatureException"},
	} {
		clock.Advance(time.Since(clock.Now()))
		clock.Advance(test.ahead)
		err := callECR(t, describer(c), "GetAuthorizationToken")
		if test.code != "" {
			wantAPIError(t, err, test.code)
		} else if err != nil {
			t.Errorf("%v ahead: %v", test.ahead, err)
		}
	}
}

func TestDateFollowsTheClockOfTheServer(t *testing.T) {
	clock := ecrtest.NewClock()
	_, c := start(t, ecrtest.Options{Now: clock.Now})
	for _, path := range []string{"/v2/", c.addBlob(ecrtest.Bytes(nil))} {
		wantHeader(t, c.registry(http.MethodGet, path), "Date", "Sun, 01 Mar 2026 12:00:00 GMT")
	}
}
