package upstream

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// endless are answers that never end, or that are none. Each is written to a connection that
// stays open until the client has left.
var endless = map[string]func(io.Writer) error{
	"another protocol":             once("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
	"another protocol that speaks": after("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "{"),
	"continue, and nothing":        once("HTTP/1.1 100 Continue\r\n\r\n"),
	"continue without end":         after("", "HTTP/1.1 100 Continue\r\n\r\n"),
	"processing without end":       after("", "HTTP/1.1 102 Processing\r\n\r\n"),
	"early hints without end":      after("", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
	"an unknown 1xx without end":   after("", "HTTP/1.1 199 Unknown\r\n\r\n"),
	"half a status line":           once("HTTP/1.1 20"),
	"a status line by drips":       after("HTTP/1.1 200 O", "K"),
	"headers without end":          after("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
	"a header without end":         after("HTTP/1.1 200 OK\r\nX: ", "y"),
	"an error by drips":            after("HTTP/1.1 403 Forbidden\r\nContent-Length: 99999\r\n\r\n", " "),
	"an error without end":         after("HTTP/1.1 500 Internal Server Error\r\n\r\n", "x"),
	"a refusal by drips":           after("HTTP/1.1 401 Unauthorized\r\nContent-Length: 99999\r\n\r\n", "x"),
	"throttling by drips":          after("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 99999\r\n\r\n", "x"),
	"a missing page by drips":      after("HTTP/1.1 404 Not Found\r\nContent-Length: 99999\r\n\r\n", "x"),
	"a document by drips":          after("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", " "),
	"a document without end":       after("HTTP/1.1 200 OK\r\n\r\n", "x"),
	"chunks by drips":              after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
	"half a chunk":                 once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff"),
	"a trailer without end":        after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", "X: y\r\n"),
	"redirects to itself":          once("HTTP/1.1 307 Temporary Redirect\r\nLocation: /itself\r\nContent-Length: 0\r\n\r\n"),
	"a redirect by drips":          after("HTTP/1.1 307 Temporary Redirect\r\nLocation: /itself\r\nContent-Length: 99999\r\n\r\n", "x"),
}

func once(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

// after writes a text, and then another one twice a second until the client has left.
func after(text, drip string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		for err == nil {
			pass(500 * time.Millisecond)
			_, err = io.WriteString(w, drip)
		}
		return err
	}
}

// raw answers with what write writes.
func raw(t *testing.T, w http.ResponseWriter, write func(io.Writer) error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if write(conn) == nil {
		_, _ = io.Copy(io.Discard, conn) // until the client has left
	}
}

// endlessQuestions are the questions, and that for referrers.
func endlessQuestions() map[string]func(context.Context, *Registry, digest.Digest) error {
	all := map[string]func(context.Context, *Registry, digest.Digest) error{
		"referrers": func(ctx context.Context, r *Registry, dgst digest.Digest) error {
			_, _, err := r.List(ctx, repo, "referrers/"+dgst.String(), url.Values{})
			return err
		},
	}
	for name, ask := range questions {
		all[name] = ask
	}
	return all
}

// endlessPlaces are the servers that may answer so: the registry, the one that it leads to,
// and its token service, to which the challenge comes first.
var endlessPlaces = map[string]http.HandlerFunc{
	"registry": func(http.ResponseWriter, *http.Request) {},
	"storage": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/endless", http.StatusTemporaryRedirect)
	},
	"token service": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.test/endless"`)
		w.WriteHeader(http.StatusUnauthorized)
	},
}

func TestAnswerWithoutAnEndEndsAtTheTimeout(t *testing.T) {
	for answer, write := range endless {
		for place, before := range endlessPlaces {
			for question, ask := range endlessQuestions() {
				t.Run(answer+"/"+place+"/"+question, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var answering sync.WaitGroup
						t.Cleanup(answering.Wait) // after the client is closed
						r := startInBubble(t, func(w http.ResponseWriter, r *http.Request) {
							if place != "registry" && r.URL.Path != "/endless" {
								before(w, r)
								return
							}
							answering.Add(1)
							defer answering.Done()
							raw(t, w, write)
						})
						begun := time.Now()
						err := ask(t.Context(), r, someBlob)
						if took := time.Since(begun); took > defaultTimeout+time.Second {
							t.Errorf("it took %v", took)
						}
						mayBe := question == "has blob" && place == "storage" || // a redirect is its answer
							!strings.HasPrefix(answer, "another protocol") && slices.Contains([]string{"blob", "has blob", "head manifest"}, question) // nobody reads their bodies
						if err == nil && !mayBe {
							t.Error("it is an answer")
						}
						wantAllSlots(t, r)
					})
				})
			}
		}
	}
}
