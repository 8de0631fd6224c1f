package distribution

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

// ECR's pages of tags and repositories: the size without n, and the largest n.
const (
	defaultPage = 100
	maxPage     = 1000
)

// listType is the Content-Type of lists at ECR.
const listType = "text/plain; charset=utf-8"

// page returns the page of sorted names that is requested, and sets a Link to the
// next one: an absolute URL with an opaque beginning. It answers a request whose
// parameters are not valid; ok is then false.
func page(x *frontend.Exchange, names []string, path string) (part []string, ok bool) {
	query := x.Request.URL.Query()
	n := defaultPage
	if query.Has("n") {
		var err error
		if n, err = strconv.Atoi(query.Get("n")); err != nil || n < 1 {
			fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "PAGINATION_NUMBER_INVALID",
				Message: "invalid number of results requested"})
			return nil, false
		}
		if n > maxPage {
			fail(x, frontend.Error{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED",
				Message: "Invalid parameter at 'maxResults' failed to satisfy " +
					"constraint: 'Member must have value less than or equal to 1000'"})
			return nil, false
		}
	}
	last, err := base64.URLEncoding.DecodeString(query.Get("last"))
	if err != nil {
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED",
			Message: "Invalid parameter at 'nextToken' failed to satisfy constraint"})
		return nil, false
	}
	start, found := slices.BinarySearch(names, string(last))
	if found {
		start++
	}
	names = names[start:]
	if len(names) > n {
		names = names[:n]
		next := url.Values{
			"last": {base64.URLEncoding.EncodeToString([]byte(names[n-1]))},
			"n":    {strconv.Itoa(n)},
		}
		x.Header().Set("Link", fmt.Sprintf(`<%s://%s%s?%s>; rel="next"`, scheme(x.Request), x.Request.Host, path, next.Encode()))
	}
	return names, true
}
