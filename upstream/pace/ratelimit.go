package pace

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RateLimit is an upstream's statement about its limit on pulls. Docker Hub makes
// it with each manifest ("Pull usage and limits" in its manual). An upstream that
// sets no limit for the caller makes none.
type RateLimit struct {
	Limit, Remaining int           // pulls in a window
	Window           time.Duration // 0 if unknown
	// Source is whose pulls the upstream counts, if it tells: an address, or the number
	// of an account.
	Source string
	// At is when it was said.
	At time.Time
}

// maxSource bounds RateLimit.Source, in bytes.
const maxSource = 100

// ParseRateLimit reads the headers of an answer that came just now. ok is false
// if they state no limit.
func ParseRateLimit(h http.Header) (limit RateLimit, ok bool) {
	most, window, ok := parseCount(h.Get("RateLimit-Limit"))
	remaining, _, known := parseCount(h.Get("RateLimit-Remaining"))
	if !ok || !known {
		return RateLimit{}, false
	}
	source := h.Get("Docker-RateLimit-Source")
	return RateLimit{most, remaining, window, source[:min(len(source), maxSource)], time.Now()}, true
}

// parseCount reads "100;w=21600", the window in seconds.
func parseCount(v string) (n int, window time.Duration, ok bool) {
	count, params, _ := strings.Cut(v, ";")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if s, err := strconv.ParseUint(value, 10, 31); err == nil && key == "w" {
			window = time.Duration(s) * time.Second
		}
	}
	return n, window, true
}

// Exhausted reads from the headers of a refusal whether a quota is used up that
// does not come back within seconds. Docker Hub tells what is left and the window
// in seconds, such as "0;w=21600" ("Pull usage and limits").
func Exhausted(h http.Header) bool {
	left, window, ok := parseCount(h.Get("RateLimit-Remaining"))
	return ok && left == 0 && window >= 100*time.Second
}
