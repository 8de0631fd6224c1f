package storage

import (
	"net/http"
	"strconv"
	"strings"
)

// byteRange is the part of a content that an answer sends, and its status.
type byteRange struct {
	start, n int64
	status   int
}

// selectRange returns the part of a content that a Range header selects. Like S3 it
// returns everything, with 200, if the header has several ranges or is not understood
// (RFC 9110, section 14.2).
func selectRange(header string, size int64) byteRange {
	everything := byteRange{n: size, status: http.StatusOK}
	unsatisfiable := byteRange{status: http.StatusRequestedRangeNotSatisfiable}
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return everything
	}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return everything
	}
	if first == "" {
		suffix, err := parsePosition(last)
		if err != nil {
			return everything
		}
		if suffix == 0 || size == 0 {
			return unsatisfiable
		}
		n := min(suffix, size)
		return byteRange{size - n, n, http.StatusPartialContent}
	}
	start, err := parsePosition(first)
	if err != nil {
		return everything
	}
	end := size - 1
	if last != "" {
		l, err := parsePosition(last)
		if err != nil || l < start {
			return everything
		}
		end = min(l, end)
	}
	if start >= size {
		return unsatisfiable
	}
	return byteRange{start, end - start + 1, http.StatusPartialContent}
}

// parsePosition reads digits only: no sign.
func parsePosition(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}
