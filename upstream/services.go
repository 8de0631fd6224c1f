package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/larder-registry/larder/upstream/guard"
)

const (
	// maxServices bounds the services that are asked at once. A signature has a few certificates.
	maxServices = 8
	// serviceTimeout bounds one question.
	serviceTimeout = 5 * time.Second
	// servicePause is for how long a service that did not answer is not asked.
	servicePause = 30 * time.Second
	// maxSilent bounds the services that are known not to answer.
	maxSilent = 256
)

// Services returns a client for services that content names, such as those that tell whether a
// certificate is revoked. They are asked as an upstream at a public address would lead there: at no
// loopback, link-local or metadata address, a few at once, each for some seconds, and not again for a while after it
// did not answer.
func (c *Client) Services() *http.Client {
	silent, _ := lru.New[string, time.Time](maxSilent) // it fails only for a size that is not positive
	return &http.Client{
		Timeout: serviceTimeout,
		Transport: &services{
			transport: c.transports.For(&url.URL{Scheme: "http", Host: "service.invalid"}),
			slots:     make(chan struct{}, maxServices),
			silent:    silent,
		},
	}
}

// services is an http.RoundTripper for services that content names.
type services struct {
	transport *guard.Transport
	slots     chan struct{}
	silent    *lru.Cache[string, time.Time] // when they did not answer
}

var errServiceSilent = errors.New("it did not answer a moment ago, and is not asked again yet")

// RoundTrip is for http.RoundTripper. It checks redirects, too.
func (s *services) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := s.transport.Check("a service", &url.URL{Scheme: "http"}, req.URL); err != nil {
		return nil, err
	}
	host := guard.Origin(req.URL)
	if at, ok := s.silent.Get(host); ok && time.Since(at) < servicePause {
		return nil, fmt.Errorf("ask %s: %w", host, errServiceSilent)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	resp, err := s.transport.RoundTrip(req)
	left := errors.Is(req.Context().Err(), context.Canceled) // which says nothing about the service
	if err != nil && !left || err == nil && resp.StatusCode >= http.StatusInternalServerError {
		s.silent.Add(host, time.Now())
	}
	return resp, err
}
