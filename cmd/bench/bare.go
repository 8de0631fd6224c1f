package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// bareCommand is the floor: the least that a Go server can do. What it has as a file it hands to http.ServeContent, a
// manifest it writes from memory, and what it has not it copies from the upstream to the client, to a file and through
// SHA-256, in one goroutine. It shares, bounds and logs nothing.
type bareCommand struct {
	Listen   string
	Dir      string
	Upstream string
	Token    string

	manifests sync.Map // by path, []byte
}

// bare is the contender of that command.
func bare() *contender {
	return &contender{
		name: "bare-go",
		start: func(ctx context.Context, l *lab, in place) (*exec.Cmd, error) {
			return ourselves(ctx, "bare", "--listen", in.addr, "--dir", in.dir,
				"--upstream", l.upstream.Endpoint, "--token", l.upstream.token)
		},
	}
}

// Run serves until the context ends.
func (b *bareCommand) Run(p *invocation) error {
	l, err := new(net.ListenConfig).Listen(p.ctx, "tcp", b.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(b.serve), ReadHeaderTimeout: readyTimeout}
	stop := context.AfterFunc(p.ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (b *bareCommand) serve(w http.ResponseWriter, r *http.Request) {
	if raw, ok := b.manifests.Load(r.URL.Path); ok {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = w.Write(raw.([]byte)) // who has left does not want it
		return
	}
	file := filepath.Join(b.Dir, path.Base(r.URL.Path))
	f, err := os.Open(file)
	if err != nil {
		b.fetch(w, r, file)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// fetch is a miss. Its client follows redirects and leaves the token behind, as Go's do.
func (b *bareCommand) fetch(w http.ResponseWriter, r *http.Request, file string) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, b.Upstream+r.URL.Path, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req.Header.Set("Authorization", b.Token)
	resp, err := bareClient.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Length", resp.Header.Get("Content-Length"))
	w.WriteHeader(resp.StatusCode)
	if r.Method == http.MethodHead || resp.StatusCode != http.StatusOK {
		return
	}
	if err := b.tee(w, r, resp.Body, file); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// bareClient is shared by all requests of that process, as connections are to be.
var bareClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func (b *bareCommand) tee(w io.Writer, r *http.Request, body io.Reader, file string) error {
	tmp, err := os.CreateTemp(b.Dir, "tmp-")
	if err != nil {
		return err
	}
	defer tmp.Close()
	hash := sha256.New()
	buf := make([]byte, 256*kib)
	// Without ReadFrom and WriteTo, which would copy in pieces of their own size.
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(tmp, hash, w)}, struct{ io.Reader }{body}, buf); err != nil {
		return err
	}
	want, ok := strings.CutPrefix(filepath.Base(file), "sha256:")
	if ok && want != fmt.Sprintf("%x", hash.Sum(nil)) {
		return fmt.Errorf("%s has another digest", file)
	}
	if err := os.Rename(tmp.Name(), file); err != nil || !strings.Contains(r.URL.Path, "/manifests/") {
		return err
	}
	raw, err := os.ReadFile(file)
	b.manifests.Store(r.URL.Path, raw)
	return err
}
