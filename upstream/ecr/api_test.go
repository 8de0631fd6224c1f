package ecr

import (
	"net/http"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
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
			if _, _, err := server.Lifecycle(t.Context(), repo); err == nil {
				t.Fatal("throttling is no error")
			}
			if rate := server.api.limiter.Backlog().Rate; rate != 2 {
				t.Errorf("the API is called %v times a second, want 2", rate)
			}
			if rate := server.limiter.Backlog().Rate; rate != 0 {
				t.Error("the API's throttling holds up clients")
			}
		})
	}
}
