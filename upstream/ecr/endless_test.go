package ecr

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// endless are the beginnings of answers that never end, and how they go on.
var endless = map[string][2]string{
	"no answer":                {"", ""},
	"another protocol":         {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", ""},
	"a protocol that speaks":   {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "{"},
	"continue without end":     {"", "HTTP/1.1 100 Continue\r\n\r\n"},
	"an unknown 1xx, again":    {"", "HTTP/1.1 199 Unknown\r\n\r\n"},
	"headers without end":      {"HTTP/1.1 200 OK\r\n", "X: y\r\n"},
	"an answer by drips":       {"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", " "},
	"an answer without end":    {"HTTP/1.1 200 OK\r\n\r\n{", " "},
	"chunks by drips":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"},
	"an error by drips":        {"HTTP/1.1 400 Bad Request\r\nContent-Length: 99999\r\n\r\n", " "},
	"a failure by drips":       {"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 99999\r\n\r\n", " "},
	"throttling by drips":      {"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 99999\r\n\r\n", " "},
	"a redirect without a way": {"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", ""},
}

// serveEndless accepts connections, answers each without an end, and returns its URL.
func serveEndless(t *testing.T, answer [2]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { answerEndlessly(conn, answer) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "http://" + l.Addr().String()
}

// answerEndlessly answers until the client has left.
func answerEndlessly(conn net.Conn, answer [2]string) {
	defer conn.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	_, err := io.WriteString(conn, answer[0])
	for err == nil && answer[1] != "" {
		select {
		case <-gone:
			return
		case <-time.After(time.Millisecond):
			_, err = io.WriteString(conn, answer[1])
		}
	}
	<-gone
}

// callsOfAWS are all calls of AWS's APIs.
var callsOfAWS = map[string]func(ctx context.Context, r *Registry, p *PublicLogins) error{
	"token": func(ctx context.Context, r *Registry, _ *PublicLogins) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://registry.test", http.NoBody)
		if err == nil {
			_, err = r.Authorize(ctx, req, "")
		}
		return err
	},
	"lifecycle": func(ctx context.Context, r *Registry, _ *PublicLogins) error {
		_, err := r.Lifecycle(ctx, repo, time.Time{})
		return err
	},
	"tag mutability": func(ctx context.Context, r *Registry, _ *PublicLogins) error {
		_, err := r.TagMutabilities(ctx, []string{repo})
		return err
	},
	"pull-time exclusion": func(ctx context.Context, r *Registry, _ *PublicLogins) error {
		_, err := r.PullTimeExclusion(ctx)
		return err
	},
	"public token": func(ctx context.Context, _ *Registry, p *PublicLogins) error {
		_, err := p.Login(ctx)
		if err == nil {
			err = errors.New("anonymous") // is what it falls back to
		}
		return err
	},
}

// endlessServices are the services of AWS that may answer so.
var endlessServices = map[string]func(t *testing.T, url string) Config{
	"ECR": func(t *testing.T, url string) Config {
		cfg := configOf(t, "123456789012.dkr.ecr.us-east-1.amazonaws.com")
		cfg.APIEndpoint = url
		return cfg
	},
	"STS": func(t *testing.T, url string) Config {
		t.Setenv("AWS_ENDPOINT_URL_STS", url)
		cfg := configOf(t, "123456789012.dkr.ecr.us-east-1.amazonaws.com")
		cfg.APIEndpoint, cfg.Identity.RoleARN = "http://127.0.0.1:1", "arn:aws:iam::123456789012:role/x"
		return cfg
	},
	"credentials of a container": func(t *testing.T, url string) Config {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url+"/credentials")
		cfg := configOf(t, "123456789012.dkr.ecr.us-east-1.amazonaws.com")
		cfg.APIEndpoint = "http://127.0.0.1:1"
		return cfg
	},
	"metadata of an instance": func(t *testing.T, url string) Config {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
		cfg := configOf(t, "123456789012.dkr.ecr.us-east-1.amazonaws.com")
		cfg.APIEndpoint = "http://127.0.0.1:1"
		return cfg
	},
}

// A call has 100 ms here. The bound of a minute is for a machine that is busy.
func TestCallOfAWSWithoutAnEndEndsAtItsTimeout(t *testing.T) {
	for service, configure := range endlessServices {
		for answer, text := range endless {
			t.Run(service+"/"+answer, func(t *testing.T) {
				upstreamtest.SetAWS(t, "AKIDLARDERTEST")
				cfg := configure(t, serveEndless(t, text))
				cfg.Timeout = 100 * time.Millisecond
				c := newTestClient(t, nil)
				r, public := c.Registry(cfg, pace.NewLimiter(cfg.Name, 0)), cfg
				public.Host.Public = true
				p := c.Public(public)
				ended := make(chan string, len(callsOfAWS))
				for call, do := range callsOfAWS {
					go func() {
						if err := do(t.Context(), r, p); err == nil {
							t.Errorf("%s: no error", call)
						}
						ended <- call
					}()
				}
				limit := time.After(time.Minute)
				for range callsOfAWS {
					select {
					case <-ended:
					case <-limit:
						t.Fatal("a call has not ended after a minute")
					}
				}
			})
		}
	}
}
