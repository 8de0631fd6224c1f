package ecrtest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const rateExceeded = `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`

func TestRateLimitFollowsTheClock(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now})
	server.SetRateLimit(ecrtest.Ping|ecrtest.Tags, 2, 3)
	var got []int
	for _, after := range []time.Duration{0, 0, 0, 0, 250 * time.Millisecond, 250 * time.Millisecond, 0, time.Hour, 0, 0, 0} {
		clock.Advance(after)
		a := c.registry(http.MethodGet, "/v2/")
		got = append(got, a.StatusCode)
		if a.StatusCode == http.StatusTooManyRequests {
			wantBody(t, a, rateExceeded)
			wantHeader(t, a, "Retry-After", "")
		}
		wantStatus(t, c.registry(http.MethodGet, "/v2/x/manifests/y"), http.StatusNotFound) // not limited
	}
	want := []int{200, 200, 200, 429, 429, 200, 429, 200, 200, 200, 429}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := server.Stats().Exceeded; n != 4 {
		t.Errorf("Exceeded is %d, want 4", n)
	}
	server.ResetStats()
	if n := server.Stats().Exceeded; n != 0 {
		t.Errorf("after a reset Exceeded is %d, want 0", n)
	}
	server.SetRateLimit(ecrtest.Ping|ecrtest.Tags, 0, 0)
	wantStatus(t, c.registry(http.MethodGet, "/v2/"), http.StatusOK)
}

func TestEverySecondRequestIsThrottled(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	blob := c.addBlob(ecrtest.Bytes([]byte("hello")))
	url := c.signedURL(blob)
	defer server.Inject(ecrtest.Fault{On: ecrtest.Any, Skip: 1, Every: 2, Times: 4, Throttle: true})()
	wantStatus(t, c.registry(http.MethodGet, blob), http.StatusTemporaryRedirect)
	wantStatus(t, c.registry(http.MethodGet, blob), http.StatusTemporaryRedirect)
	a := c.registry(http.MethodGet, blob)
	wantStatus(t, a, http.StatusTooManyRequests)
	wantBody(t, a, rateExceeded)
	wantStatus(t, c.get(url), http.StatusOK)
	a = c.get(url)
	wantStatus(t, a, http.StatusServiceUnavailable)
	if !strings.Contains(a.body, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>") {
		t.Errorf("storage answered %s", a.body)
	}
	c.login()
	wantAPIError(t, callECR(t, describer(c), "GetAuthorizationToken"), "ThrottlingException")
	c.login()
	cfg := sdk(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	cfg.RetryMaxAttempts = 1
	wantAPIError(t, callerIdentity(t, cfg), "Throttling")
	for range 3 {
		c.login()
	}
}

func TestFaultFailsOneOperation(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	c.addBlob(ecrtest.Bytes(nil))
	for _, fault := range []ecrtest.Fault{
		{Code: "AccessDeniedException", Message: "no"},
		{Code: "ServerException", Status: http.StatusInternalServerError},
	} {
		fault.On, fault.Operation = ecrtest.API, "DescribeImages"
		remove := server.Inject(fault)
		c.login()
		wantAPIError(t, callECR(t, describer(c), "DescribeImages"), fault.Code)
		remove()
		if err := callECR(t, describer(c), "DescribeImages"); err != nil {
			t.Error(err)
		}
	}
	defer server.Inject(ecrtest.Fault{
		On: ecrtest.Manifest, Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: "Data limit exceeded"})()
	a := c.registry(http.MethodGet, "/v2/team/app/manifests/v1")
	wantStatus(t, a, http.StatusTooManyRequests)
	wantBody(t, a, errorBody("TOOMANYREQUESTS", "Data limit exceeded"))
}
