package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// TestOddRangesOfABlobHaveItsBytes asks for a cached blob by odd forms of Range.
func TestOddRangesOfABlobHaveItsBytes(t *testing.T) {
	r := newRig(t, settings{})
	layer := ecrtest.Random(1, 1000)
	path := blobPath(app, r.addImage("v1", layer).Blobs[0].Digest)
	content := r.cache(path)
	for _, value := range []string{
		"", "bytes", "bytes=", "bytes=-", "bytes=--1", "bytes=-0", "bytes=0--1", "bytes=5-4", "bytes=999-", "bytes=1000-", "bytes=-1001", "bytes=-1",
		"bytes=0-999", "bytes=0-1000", "bytes=+1-+5", "bytes=0x1-0x5", "bytes=1e1-", "bytes=1.5-2", "bytes= 1 - 5 ", "bytes=1-5,", "bytes=,", "bytes=,,,1-5",
		"bytes=1-5;2-6", "Bytes=1-5", "bytes =1-5", "octets=1-5", "bytes=1-5, octets=6-7", "bytes=0-0,0-0,0-0", "bytes=0-,0-,0-,0-", "bytes=-1000,-1000",
		"bytes=9223372036854775807-9223372036854775807", "bytes=-9223372036854775807", "bytes=00000000000000000001-5", "bytes=1-5\t", "bytes=\u00b9-5",
		"bytes=" + strings.Repeat("1", 10_000) + "-", "bytes=" + strings.Repeat(" ", 10_000) + "1-5",
	} {
		a := r.get(path, "Range", value)
		switch {
		case a.err != nil:
			t.Errorf("%.50q: %v", value, a.err)
		case a.StatusCode == http.StatusOK:
			wantBody(t, a, content)
		case a.StatusCode == http.StatusRequestedRangeNotSatisfiable && len(a.body) < 1000:
		case a.StatusCode == http.StatusPartialContent && len(a.body) < 3*len(content):
			var first, last, size int
			if n, _ := fmt.Sscanf(a.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size); n == 3 {
				wantBody(t, a, content[first:last+1])
			} else if !strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/byteranges") {
				t.Errorf("%.50q: Content-Range %q", value, a.Header.Get("Content-Range"))
			}
		default:
			t.Errorf("%.50q: %s, %d bytes", value, a.Status, len(a.body))
		}
	}
}

// TestNonsenseOnAConnectionIsRefused writes to connections what no client should. Each must end
// without an answer from the upstream, and with at most a short error.
func TestNonsenseOnAConnectionIsRefused(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log})
	r.addImage("v1", ecrtest.Random(1, 1000))
	host := r.server.Listener.Addr().String()
	get := func(path string, header ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" + strings.Join(header, "") + "\r\n"
	}
	const good = "/v2/team/app/manifests/v1"
	long := strings.Repeat("x", 50_000)
	for name, text := range map[string]string{
		"another host in the path":     get("/v2/evil.test/x/manifests/v1?ns=evil.test"),
		"a URL of another host":        get("http://evil.test/v2/Team/manifests/v1"),
		"a URL of a file":              get("file:///etc/passwd"),
		"a path without a slash":       get("v2/team/app/manifests/v1"),
		"a tunnel":                     "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\nConnection: close\r\n\r\n",
		"a trace":                      "TRACE " + good + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nAuthorization: Basic hunter2\r\n\r\n",
		"an upgrade of a write":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"half an escape":               get("/v2/team/app/manifests/%"),
		"a null in the path":           get("/v2/team/app/manifests/v1%00"),
		"a line break in the path":     get("/v2/team/app/manifests/v1%0d%0aX:%20y"),
		"an escape in the path":        get("/v2/team/app/manifests/%1b%5b2J"),
		"invalid UTF-8 in the path":    get("/v2/team/app/manifests/%ff%fe"),
		"a bidi mark in the path":      get("/v2/team/app/manifests/%e2%80%aev1"),
		"a raw line break":             get("/v2/team/app/manifests/v1\nX: y"),
		"a long path":                  get("/v2/" + long + "/manifests/v1"),
		"a path of slashes":            get("/v2/" + strings.Repeat("/", 50_000) + "/manifests/v1"),
		"a path of dots":               get("/v2/" + strings.Repeat("../", 10_000) + "etc/manifests/passwd"),
		"a long namespace":             get(good + "?ns=" + long),
		"a namespace with a password":  get(good + "?ns=admin:hunter2%40evil.test"),
		"a namespace with a line":      get(good + "?ns=evil.test%0d%0aX:y"),
		"two namespaces":               get(good + "?ns=evil.test&ns=registry.test"),
		"many parameters":              get(good + "?" + strings.Repeat("a&", 20_000)),
		"no Host":                      "GET " + good + " HTTP/1.1\r\nConnection: close\r\n\r\n",
		"two Hosts":                    get(good, "Host: evil.test\r\n"),
		"a Host with a slash":          "GET " + good + " HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n",
		"two lengths":                  get(good, "Content-Length: 5\r\n", "Content-Length: 6\r\n"),
		"a length below 0":             get(good, "Content-Length: -5\r\n"),
		"a length that is huge":        get(good, "Content-Length: 99999999999999999999\r\n"),
		"a length with a sign":         get(good, "Content-Length: +5\r\n"),
		"a chunk that is huge":         get("/v2/Team/manifests/v1", "Transfer-Encoding: chunked\r\n") + "ffffffffffffffffff\r\n",
		"a chunk that is nonsense":     get("/v2/Team/manifests/v1", "Transfer-Encoding: chunked\r\n") + "zz\r\n",
		"an unknown transfer encoding": get(good, "Transfer-Encoding: gzip\r\n"),
		"a smuggled request":           get("/v2/Team/manifests/v1", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n" + get(good),
		"a header without a name":      get(good, ": x\r\n"),
		"a header with a space":        get(good, "X : y\r\n"),
		"a header with a null":         get(good, "X: \x00\r\n"),
		"an unknown expectation":       get(good, "Expect: 418-teapot\r\n"),
		"another site":                 get(good, "Sec-Fetch-Site: cross-site\r\n"),
		"another site among others":    get(good, "Sec-Fetch-Site: none\r\n", "sec-fetch-site: cross-site\r\n"),
		"an Origin":                    get(good, "Origin: http://evil.test\r\n"),
		"two Origins":                  get(good, "Origin: http://"+host+"\r\n", "Origin: http://evil.test\r\n"),
		"TLS":                          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"nothing":                      "",
		"line breaks":                  strings.Repeat("\r\n", 1000),
		"HTTP/0.9":                     "GET /v2/\r\n\r\n",
		"HTTP/3.0":                     "GET " + good + " HTTP/3.0\r\nHost: " + host + "\r\n\r\n",
	} {
		answer, err := speak(t, host, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		status, _, _ := bytes.Cut(answer, []byte("\r\n"))
		if bytes.Contains(status, []byte(" 200 ")) || bytes.Contains(status, []byte(" 500 ")) || len(answer) > 8<<10 {
			t.Errorf("%s: %d bytes: %.300s", name, len(answer), answer)
		}
		if bytes.Contains(answer, []byte("\nX: y")) || bytes.Contains(answer, []byte("hunter2")) {
			t.Errorf("%s: %.600s", name, answer)
		}
	}
	if got := r.ecr.Stats().Requests; len(got) != 0 {
		t.Errorf("the upstream was asked: %v", got)
	}
	wantStatus(t, r.get(good), http.StatusOK)
	r.server.Close() // waits for the last line
	if n := len(log.requests(t)); n == 0 {
		t.Error("nothing is logged")
	}
	for line := range strings.Lines(log.String()) {
		if len(line) > 1500 || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\r\n\x00\u202e") || strings.Contains(line, "hunter2") {
			t.Errorf("%d bytes: %.300q", len(line), line)
		}
	}
}

// speak writes a text to a new connection, says that it is all, and returns the answer.
func speak(t *testing.T, host, text string) ([]byte, error) {
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	_, _ = io.WriteString(conn, text) // it may be refused before it is all there
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return answer, err
	}
	return answer, nil
}

// TestFloodOfUnknownNamesTakesLittleMemory asks for ever new names of each kind.
func TestFloodOfUnknownNamesTakesLittleMemory(t *testing.T) {
	larder := serveScripted(t, cache.Options{Tags: fresh}, &scripted{host: "one.test"})
	ballast := strings.Repeat("n", 120)
	kinds := map[string]func(i int) string{
		"repositories": func(i int) string { return manifestPath("one.test/"+ballast+strconv.Itoa(i), "v1") },
		"tags":         func(i int) string { return manifestPath("one.test/app", ballast+strconv.Itoa(i)) },
		"manifests":    func(i int) string { return manifestPath("one.test/app", digest.FromString(strconv.Itoa(i)).String()) },
		"blobs":        func(i int) string { return blobPath("one.test/app", digest.FromString(strconv.Itoa(i))) },
		"lists":        func(i int) string { return "/v2/one.test/" + ballast + strconv.Itoa(i) + "/tags/list" },
		"referrers":    func(i int) string { return referrersPath("one.test/app", digest.FromString(strconv.Itoa(i))) },
		"registries":   func(i int) string { return manifestPath(ballast[:50]+strconv.Itoa(i)+".test/app", "v1") },
		"namespaces":   func(i int) string { return manifestPath("app", "v1") + "?ns=n" + strconv.Itoa(i) + ".test" },
		"invalid":      func(i int) string { return "/v2/" + strings.ToUpper(ballast) + strconv.Itoa(i) },
		"pages":        func(i int) string { return "/v2/one.test/app/tags/list?n=5&last=" + ballast + strconv.Itoa(i) },
		"types": func(i int) string {
			return referrersPath("one.test/app", digestOfNothing) + "?artifactType=a/" + ballast + strconv.Itoa(i)
		},
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for name, path := range kinds {
		const n = 2000
		flood := func(from int) {
			for i := from; i < from+n; i++ {
				if got := ask(t, larder, path(i)); got.Code < 400 || got.Code >= 500 {
					t.Fatalf("%s: %d: %.300s", name, got.Code, got.Body)
				}
			}
		}
		flood(0) // what is bounded is full then, or nearly
		before := heap()
		flood(n)
		limit := int64(n * 200) // a name, its path and an error take more
		if slices.Contains([]string{"repositories", "tags", "manifests", "blobs", "referrers"}, name) {
			limit = n * 2 << 10 // the cache remembers some, in a memory of its own that is bounded
		}
		if grown := heap() - before; grown > limit {
			t.Errorf("%s: %d names took %d bytes more", name, n, grown)
		}
	}
}

// net/http takes the end of what a client sends for its leaving.
func TestClientThatStopsSendingGetsNoEmptyAnswer(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	defer r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob | ecrtest.Tags, Hang: true})()
	host := r.server.Listener.Addr().String()
	for _, path := range []string{manifestPath(app, "v1"), manifestPath(app, image.Root.Digest.String()), blobPath(app, image.Blobs[0].Digest), "/v2/" + app + "/tags/list"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			answer, err := speak(t, host, method+" "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			if err != nil || bytes.Contains(answer, []byte(" 200 ")) {
				t.Errorf("%s %s: %q, %v", method, path, answer, err)
			}
		}
	}
}
