package ecrapi

import (
	"encoding/base64"
	"slices"
	"strings"
)

// ECR's pages of descriptions: the size without maxResults, and the largest one.
const (
	defaultPage = 100
	maxPage     = 1000
)

// page returns a page of elements that are sorted by a key, and the opaque token of
// the next page, or "". It answers a call whose parameters are not valid; ok is then
// false.
func page[T any](r request, all []T, size *int, token string, key func(T) string) (part []T, next string, ok bool) {
	n := defaultPage
	if size != nil {
		n = *size
	}
	last, err := base64.URLEncoding.DecodeString(token)
	if n < 1 || n > maxPage || err != nil {
		r.fail("InvalidParameterException", "Invalid parameter at 'maxResults' or 'nextToken' failed to satisfy constraint")
		return nil, "", false
	}
	start, found := slices.BinarySearchFunc(all, string(last), func(e T, last string) int {
		return strings.Compare(key(e), last)
	})
	if found {
		start++
	}
	all = all[start:]
	if len(all) <= n {
		return all, "", true
	}
	return all[:n], base64.URLEncoding.EncodeToString([]byte(key(all[n-1]))), true
}
