package proxy

import (
	"net/http"
	"strconv"
	"strings"
)

// firstSpan returns the bytes of a content of size bytes that the answer to a request begins with:
// n bytes from off on. It is a guess that saves a request to the upstream; http.ServeContent decides
// what is sent. n is 0 if the answer has no bytes of the content.
func firstSpan(r *http.Request, size int64) (off, n int64) {
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		return 0, size
	}
	spec, _, _ = strings.Cut(spec, ",")
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return 0, 0
	}
	from, errFrom := strconv.ParseInt(first, 10, 64)
	to, errTo := strconv.ParseInt(last, 10, 64)
	switch {
	case first == "" && errTo == nil && to > 0: // the last bytes
		return max(size-to, 0), min(to, size)
	case errFrom != nil || from < 0 || from >= size:
		return 0, 0
	case last == "":
		return from, size - from
	case errTo != nil || to < from:
		return 0, 0
	}
	return from, min(to, size-1) - from + 1
}
