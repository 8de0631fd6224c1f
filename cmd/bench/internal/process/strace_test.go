package process

import "testing"

// White-box: a summary with errors cannot be had from strace at will, and strace may not be installed.
func TestTotalCallsIsReadWithAndWithoutErrors(t *testing.T) {
	for _, summary := range []string{
		"100.00    0.001234           1      1234        56 total",
		"100.00    0.001234                  1234           total",
	} {
		if n, err := totalCalls([]byte(summary)); err != nil || n != 1234 {
			t.Errorf("%q: %d, %v; want 1234", summary, n, err)
		}
	}
	if n, err := totalCalls([]byte("strace: attach: Operation not permitted")); err == nil {
		t.Errorf("%d calls without a total", n)
	}
}
