package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
)

// folder are the flags that say which cache folder a command is about.
type folder struct {
	Config   string  `help:"Configuration file of the daemon ($$LARDER_CONFIG)." type:"path" placeholder:"FILE"`
	CacheDir *string `help:"Folder of the cache." placeholder:"DIR"`
}

// client asks /api/v1 of the daemon that has the folder, or of this process
// where none runs.
type client struct {
	http  *http.Client
	close func() error
}

// with runs a command's work with a client of its folder.
func (f folder) with(p *invocation, work func(*client) error) error {
	cfg, err := settings{Config: f.Config, CacheDir: f.CacheDir}.load(p.env)
	if err != nil {
		return err
	}
	c, err := connect(p, cfg)
	if err != nil {
		return err
	}
	return errors.Join(work(c), c.close())
}

func connect(p *invocation, cfg *config.Config) (*client, error) {
	path := socketPath(cfg.Cache.Dir)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	conn, err := dial(p.ctx, "", "")
	switch {
	case err == nil:
		transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
		return &client{&http.Client{Transport: transport}, func() error { return nil }}, conn.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), len(path) > maxSocketPath:
		return openFolder(p, cfg)
	}
	return nil, fmt.Errorf("reach the daemon: %w", err)
}

// openFolder serves the command from this process, which has the folder
// meanwhile.
func openFolder(p *invocation, cfg *config.Config) (*client, error) {
	if _, err := os.Stat(filepath.Join(cfg.Cache.Dir, "larder.lock")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a cache folder: no daemon runs there, nor has one", cfg.Cache.Dir)
	}
	cfg.Log.Level = max(cfg.Log.Level, slog.LevelWarn)
	store, err := openStore(cfg, newLogger(cfg, p.stderr), nil, -1) // a command is no time for a scrub
	if err != nil {
		return nil, err
	}
	return &client{&http.Client{Transport: inProcess{proxy.API(store)}}, store.Close}, nil
}

// do sends a request for /api/v1 and decodes the answer into v, unless v is nil.
func (c *client) do(ctx context.Context, method, what string, query url.Values, v any) error {
	address := url.URL{Scheme: "http", Host: "larder", Path: "/api/v1/" + what, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, address.String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return refusal(resp)
	}
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// refusal is the error that an answer tells.
func refusal(resp *http.Response) error {
	var body struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(resp.Body).Decode(&body) != nil || body.Error == "" {
		body.Error = "the daemon answers " + resp.Status // one of another version
	}
	err := errors.New(body.Error)
	if resp.StatusCode == http.StatusBadRequest {
		return usageError{err}
	}
	return err
}

// inProcess sends requests to a handler of this process.
type inProcess struct{ handler http.Handler }

// RoundTrip is http.RoundTripper.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	w := &answer{header: make(http.Header), status: http.StatusOK}
	t.handler.ServeHTTP(w, req)
	return &http.Response{
		Status:     http.StatusText(w.status),
		StatusCode: w.status,
		Header:     w.header,
		Body:       io.NopCloser(&w.body),
		Request:    req,
	}, nil
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// printJSON writes v for programs to read.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
