package upstream

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
)

// request is a request to a registry.
type request struct {
	method     string // empty means GET
	repository string
	scope      string // the repository that the credentials are for, if it is another one
	path       string // below /v2/<repository>/
	query      url.Values
	accept     string
	byteRange  string
	timeout    time.Duration // of each answer; 0 means site.timeout
	awaited    int64         // bytes of the body that belong to the answer: it has come when they have
	maxBytes   int64         // of a document; 0 means maxDocument

	priority pace.Priority // while the upstream throttles
	spare    bool          // fails instead of waiting then
}

func newRequest(ctx context.Context, method string, to *url.URL, req request) (*http.Request, error) {
	out, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	out.Header.Set("User-Agent", "larder")
	out.Header.Set("Accept-Encoding", "identity") // some servers compress for a client that says nothing
	if req.accept != "" {
		out.Header.Set("Accept", req.accept)
	}
	if req.byteRange != "" {
		out.Header.Set("Range", req.byteRange)
	}
	return out, nil
}

// repositoryIn returns the repository that a path of the distribution API names, or ""
// if the path is none.
func repositoryIn(path string) string {
	_, path, _ = strings.Cut(path, "/v2/")
	for _, kind := range []string{"/manifests/", "/blobs/", "/referrers/", "/tags/list"} {
		if i := strings.LastIndex(path, kind); i > 0 && name.IsRepository(path[:i]) {
			return path[:i]
		}
	}
	return ""
}

// hasContent reports an answer whose body is what the request is for. Its reader bounds
// how long it waits for it.
func hasContent(resp *http.Response) bool {
	return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent
}

// body is an answer's body that calls done when it is closed.
type body struct {
	io.ReadCloser
	done func()
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}
