package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// partialLies are answers of a registry that knows the digest and the size of an image's layer, which its manifest tells to
// anybody, and does not have its bytes.
func partialLies(image *secret) map[string]http.HandlerFunc {
	size := len(image.layer)
	dgst := digest.FromBytes(image.layer).String()
	part := func(contentRange string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			first, last := askedRange(r, size)
			w.Header().Set("Docker-Content-Digest", dgst)
			w.Header().Set("Content-Range", strings.NewReplacer("FIRST", strconv.Itoa(first), "LAST", strconv.Itoa(last), "SIZE", strconv.Itoa(size)).Replace(contentRange))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(body[:min(len(body), last-first+1)])
		}
	}
	whole := func(length int, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", dgst)
			w.Header().Set("Content-Length", strconv.Itoa(length))
			_, _ = w.Write(body)
		}
	}
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", dgst)
			w.Header().Set("ETag", strconv.Quote(dgst))
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	zeros := make([]byte, size)
	almost := bytes.Clone(image.layer)
	for i := 40; i < len(almost); i += 50 { // no 64 bytes are right
		almost[i] ^= 1
	}
	return map[string]http.HandlerFunc{
		"part-empty":       part("bytes FIRST-LAST/SIZE", nil),
		"part-short":       part("bytes FIRST-LAST/SIZE", zeros[:10]),
		"part-zeros":       part("bytes FIRST-LAST/SIZE", zeros),
		"part-anysize":     part("bytes FIRST-LAST/*", zeros),
		"part-elsewhere":   part("bytes 0-63/SIZE", image.layer[:64]), // the bytes of an archive's beginning are known
		"part-beginning":   part("bytes FIRST-LAST/SIZE", image.layer[:64]),
		"part-none":        part("", zeros),
		"part-nonsense":    part("bytes -1-99999999999999999999/SIZE", zeros),
		"part-end":         part("bytes LAST-LAST/SIZE", zeros),
		"whole-zeros":      whole(size, zeros),
		"whole-cut":        whole(size, image.layer[:20]),
		"whole-almost":     whole(size, almost),
		"whole-beginning":  whole(size, append(bytes.Clone(image.layer[:48]), zeros[48:]...)),
		"whole-empty":      whole(0, nil),
		"no-content":       status(http.StatusNoContent, "Content-Range", "bytes 0-63/"+strconv.Itoa(size)),
		"not-modified":     status(http.StatusNotModified),
		"accepted":         status(http.StatusAccepted, "Location", "/v2/b/y/blobs/uploads/1"),
		"created":          status(http.StatusCreated, "Location", "/v2/b/y/blobs/"+dgst), // as after a mount
		"unsatisfied":      status(http.StatusRequestedRangeNotSatisfiable, "Content-Range", "bytes */"+strconv.Itoa(size)),
		"denied":           status(http.StatusForbidden),
		"unauthorized":     status(http.StatusUnauthorized),
		"gone":             status(http.StatusGone),
		"legal":            status(http.StatusUnavailableForLegalReasons),
		"multiple-choices": status(http.StatusMultipleChoices, "Location", "/v2/b/y/blobs/"+dgst),
		"encoded": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			whole(size, zeros)(w, r)
		},
		"ranges": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = fmt.Fprintf(w, "--x\r\nContent-Range: bytes 0-9/%d\r\n\r\n0123456789\r\n--x--\r\n", size)
		},
		"hang-up": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
		"head-then-hang-up": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				whole(size, nil)(w, r)
				return
			}
			panic(http.ErrAbortHandler)
		},
		"loop": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		},
	}
}

// askedRange is the range of a request, or all.
func askedRange(r *http.Request, size int) (first, last int) {
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n < 2 {
		last = size - 1
	}
	return first, last
}

// Each lie is tried with a blob that no manifest names, with one that a manifest names, and with the victim's manifest, by
// GET, HEAD and ranges; and once more after a restart, when the liar is gone.
func TestCachedBytesAreServedOnlyForBytes(t *testing.T) {
	t.Parallel()
	image := newSecret(4)
	layer, manifest := digest.FromBytes(image.layer), digest.FromBytes(image.manifest)
	victim := newClaimant(t, "victim.example", image.serve)
	victim.add("1", image.manifest)
	all := []*claimant{victim}
	for name, blob := range partialLies(image) {
		liar := newClaimant(t, name+".example", blob)
		liar.add("named", imageOf(image.config, image.layer, len(image.layer)))
		liar.add("indexed", indexOf(image.manifest))
		liar.heads[manifest.String()] = manifest.String()
		delete(liar.manifests, manifest.String()) // "named" has the victim's bytes if the sizes are equal
		all = append(all, liar)
	}
	s := claimantsStack(t, "", all...)
	s.requireGets(t, victim, "a/x/manifests/1", image.manifest)
	s.requireGets(t, victim, "a/x/blobs/"+layer.String(), image.layer)
	t.Run("lies", func(t *testing.T) {
		for _, liar := range all[1:] {
			t.Run(liar.host, func(t *testing.T) {
				t.Parallel()
				if resp, _ := s.ask(t, http.MethodGet, liar, "b/y/manifests/named", ""); resp.StatusCode != http.StatusOK {
					t.Errorf("the manifest that names the layer: %s", resp.Status)
				}
				s.requireGets(t, liar, "b/y/manifests/indexed", liar.manifests["indexed"])
				s.requireNoBytes(t, liar, "b/unnamed/blobs/"+layer.String(), image.layer)
				s.requireNoBytes(t, liar, "b/y/blobs/"+layer.String(), image.layer)
				s.requireNoBytes(t, liar, "b/y/blobs/"+manifest.String(), image.manifest)
				s.requireNoBytes(t, liar, "a/x/manifests/"+manifest.String(), image.manifest)
			})
		}
	})
	for _, liar := range all[1:] {
		liar.server.Close()
	}
	s.restartLarder(t)
	t.Run("after a restart, without the liars", func(t *testing.T) {
		for _, liar := range all[1:] {
			t.Run(liar.host, func(t *testing.T) {
				t.Parallel()
				resp, body := s.ask(t, http.MethodGet, liar, "b/y/blobs/"+layer.String(), "")
				if resp.StatusCode == http.StatusOK || len(body) > 10_000 {
					t.Errorf("%s, %d bytes", resp.Status, len(body))
				}
			})
		}
	})
	s.requireGets(t, victim, "a/x/blobs/"+layer.String(), image.layer)
}

// requireNoBytes checks that no client of a registry gets 16 bytes of content in a row, which the registry has not sent.
// The size is no secret: the manifest tells it.
func (s *stack) requireNoBytes(t *testing.T, c *claimant, path string, content []byte) {
	t.Helper()
	n := len(content)
	for _, byteRange := range []string{"", "bytes=100-163", "bytes=-64", "bytes=64-127,200-263"} {
		resp, body := s.ask(t, http.MethodGet, c, path, byteRange)
		for off := 64; off+16 <= n; off += 16 { // the registry knows the beginning
			if len(body) >= 16 && bytes.Contains(body, content[off:off+16]) && !strings.HasPrefix(c.host, "whole-almost") {
				t.Errorf("GET %s/%s %s: %s with the bytes at %d", c.host, path, byteRange, resp.Status, off)
				break
			}
		}
		if bytes.Equal(body, content) {
			t.Errorf("GET %s/%s %s: %s with all bytes", c.host, path, byteRange, resp.Status)
		}
	}
	if resp, _ := s.ask(t, http.MethodHead, c, path, ""); resp.StatusCode == http.StatusOK && resp.Header.Get("X-Cache") == "HIT" {
		t.Errorf("HEAD %s/%s: %s from the cache", c.host, path, resp.Status)
	}
}
