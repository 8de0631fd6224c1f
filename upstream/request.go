package upstream

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

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

	priority pace.Priority // while the upstream throttles
	spare    bool          // fails instead of waiting then
}

func newRequest(ctx context.Context, method string, to *url.URL, req request) (*http.Request, error) {
	out, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	out.Header.Set("User-Agent", "larder")
	if req.accept != "" {
		out.Header.Set("Accept", req.accept)
	}
	if req.byteRange != "" {
		out.Header.Set("Range", req.byteRange)
	}
	return out, nil
}

// redirected reports an answer that leads to another URL.
func redirected(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
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
