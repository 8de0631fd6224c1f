package load

import (
	"testing"
	"time"
)

// White-box: wrk may not be installed.
func TestOutputOfWrkIsParsed(t *testing.T) {
	requests, took, err := parseWrk([]byte("Running 3s test\n  119321 requests in 3.01s, 82.30MB read\nRequests/sec:  39641.53\n"))
	if err != nil || requests != 119321 || took != 3010*time.Millisecond {
		t.Errorf("%d requests in %v, %v", requests, took, err)
	}
	for _, out := range []string{
		"  119321 requests in 3.01s, 82.30MB read\n  Non-2xx or 3xx responses: 3\n",
		"  119321 requests in 3.01s, 82.30MB read\n  Socket errors: connect 0, read 3, write 0, timeout 0\n",
		"unable to connect\n",
	} {
		if _, _, err := parseWrk([]byte(out)); err == nil {
			t.Errorf("no error for %q", out)
		}
	}
}
