package ecr

import (
	"net/http"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

func TestThrottledAPIIsCalledLessOften(t *testing.T) {
	for name, fault := range map[string]ecrtest.Fault{
		"ThrottlingException": {Throttle: true},
		"a bare 429":          {Status: http.StatusTooManyRequests, Body: "Too Many Requests"},
	} {
		t.Run(name, func(t *testing.T) {
			server := startECR(t)
			fault.On = ecrtest.API
			server.Inject(fault)
			// A few refusals set no limit. The call below makes one more.
			limiter := server.api.limiter
			for range 7 {
				sent, err := limiter.Try()
				if err != nil {
					t.Fatal(err)
				}
				limiter.Refused(sent, pace.Refusal{Err: errNoNetwork, Throttled: true})
			}
			if rate := limiter.Backlog().Rate; rate != 0 {
				t.Errorf("after a few refusals the API is called %v times a second, want no limit", rate)
			}
			if _, err := server.Lifecycle(t.Context(), repo, time.Time{}); err == nil {
				t.Fatal("throttling is no error")
			}
			if rate := limiter.Backlog().Rate; rate == 0 {
				t.Error("the API is called without a limit")
			}
			if rate := server.limiter.Backlog().Rate; rate != 0 {
				t.Error("the API's throttling holds up clients")
			}
		})
	}
}

func TestThrottlingOfTheAPIIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		fault     ecrtest.Fault
		throttled bool
	}{
		"ThrottlingException": {ecrtest.Fault{Throttle: true}, true},
		"a bare 429":          {ecrtest.Fault{Status: http.StatusTooManyRequests, Body: "Too Many Requests"}, true},
		"another error":       {ecrtest.Fault{Status: http.StatusNotImplemented}, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := startECR(t)
			c.fault.On = ecrtest.API
			server.Inject(c.fault)
			if _, err := server.Lifecycle(t.Context(), repo, time.Time{}); err == nil || reply.IsThrottled(err) != c.throttled {
				t.Errorf("%v: throttled: %t", err, reply.IsThrottled(err))
			}
		})
	}
}
