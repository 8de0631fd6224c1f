// Package bare is the floor for a comparison: the least that a Go server can do. It gives a stored file to
// http.ServeContent, writes a manifest from memory, and copies anything else from the upstream to the client, to a file
// and through SHA-256, in one goroutine. It shares, limits and logs nothing.
package bare

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Command is the argument with which the bench runs itself as the bare server.
const Command = "bare"

// Options configure a bare server. All of them are needed.
type Options struct {
	Listen        string // address
	Dir           string // for the files
	Upstream      string // URL
	Authorization string // header for the upstream
}

// Serve serves until ctx ends.
func Serve(ctx context.Context, opts Options) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", opts.Listen)
	if err != nil {
		return err
	}
	h := &handler{Options: opts, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	defer h.client.CloseIdleConnections()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type handler struct {
	Options
	client    *http.Client
	manifests sync.Map // []byte by path
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if raw, ok := h.manifests.Load(r.URL.Path); ok {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = w.Write(raw.([]byte)) // an error means that the client has left
		return
	}
	file := filepath.Join(h.Dir, path.Base(r.URL.Path))
	f, err := os.Open(file)
	if err != nil {
		h.fetch(w, r, file)
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

// fetch serves a miss. The client follows redirects without the Authorization header, as Go's clients do.
func (h *handler) fetch(w http.ResponseWriter, r *http.Request, file string) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, h.Upstream+r.URL.Path, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req.Header.Set("Authorization", h.Authorization)
	resp, err := h.client.Do(req)
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
	if err := h.store(w, r, resp.Body, file); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// copyBuffer is the size in which bodies are copied, in bytes.
const copyBuffer = 256 << 10

// store copies a body to the client and to a file.
func (h *handler) store(w io.Writer, r *http.Request, body io.Reader, file string) error {
	tmp, err := os.CreateTemp(h.Dir, "tmp-")
	if err != nil {
		return err
	}
	defer tmp.Close()
	hash := sha256.New()
	// Without ReadFrom and WriteTo, which would use buffers of another size.
	to, from := struct{ io.Writer }{io.MultiWriter(tmp, hash, w)}, struct{ io.Reader }{body}
	if _, err := io.CopyBuffer(to, from, make([]byte, copyBuffer)); err != nil {
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
	h.manifests.Store(r.URL.Path, raw)
	return err
}
