package proxy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// liarsImage is the manifest that the liars know.
const liarsImage = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"` + digestOfNothing + `","size":0},"layers":[]}`

// answering answers 200 with a body, and headers in pairs.
func answering(body string, header ...string) http.HandlerFunc {
	return refusing(http.StatusOK, body, header...)
}

// refusing is answering with a status.
func refusing(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], strings.ReplaceAll(header[i+1], "SELF", "http://"+r.Host))
		}
		w.WriteHeader(status)
		if status != http.StatusNotModified && status != http.StatusNoContent {
			_, _ = io.WriteString(w, body)
		}
	}
}

// speaking writes a text in place of an answer, and hangs up.
func speaking(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// liars are the handlers of registries that are allowed and lie about everything.
func liars() map[string]http.HandlerFunc {
	long := strings.Repeat("x", 100_000)
	all := map[string]http.HandlerFunc{
		"digest-sha384":        answering(liarsImage, "Docker-Content-Digest", "sha384:"+strings.Repeat("0", 96)),
		"digest-other":         answering(liarsImage, "Docker-Content-Digest", digestOfNothing),
		"digest-md5":           answering(liarsImage, "Docker-Content-Digest", "md5:d41d8cd98f00b204e9800998ecf8427e"),
		"digest-upwards":       answering(liarsImage, "Docker-Content-Digest", "sha256:../../../etc/passwd"),
		"digest-sha512":        answering(liarsImage, "Docker-Content-Digest", "sha512:"+strings.Repeat("0", 128)),
		"digest-long":          answering(liarsImage, "Docker-Content-Digest", "sha256:"+long),
		"digest-twice":         answering(liarsImage, "Docker-Content-Digest", digestOfNothing, "Docker-Content-Digest", digest.FromString(liarsImage).String()),
		"length-more":          speaking("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + liarsImage),
		"length-less":          speaking("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + liarsImage),
		"length-two":           speaking("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n" + liarsImage),
		"length-below-0":       speaking("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + liarsImage),
		"length-huge":          speaking("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n" + liarsImage),
		"length-overflow":      speaking("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n" + liarsImage),
		"length-and-chunks":    speaking("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
		"chunk-huge":           speaking("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nx"),
		"chunk-overflow":       speaking("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"),
		"chunk-extension":      speaking("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + long + "\r\nx\r\n0\r\n\r\n"),
		"chunk-negative":       speaking("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n"),
		"encoding-twice":       speaking("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
		"old-protocol":         speaking(liarsImage),
		"http-1.0":             speaking("HTTP/1.0 200 OK\r\n\r\n" + liarsImage),
		"http-9.9":             speaking("HTTP/9.9 200 OK\r\n\r\n" + liarsImage),
		"http-2":               speaking("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"no-status":            speaking("HTTP/1.1 \r\n\r\n"),
		"status-text":          speaking("HTTP/1.1 abc OK\r\n\r\n"),
		"status-negative":      speaking("HTTP/1.1 -20 OK\r\n\r\n"),
		"status-000":           speaking("HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
		"header-nameless":      speaking("HTTP/1.1 200 OK\r\n: x\r\n\r\n" + liarsImage),
		"header-folded":        speaking("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n" + liarsImage),
		"header-null":          speaking("HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n" + liarsImage),
		"headers-of-20MB":      speaking("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+long+"\r\n", 200) + "\r\n" + liarsImage),
		"encoding-gzip":        answering(liarsImage, "Content-Encoding", "gzip"),
		"encoding-odd":         answering(liarsImage, "Content-Encoding", "br, gzip, "+long),
		"type-long":            answering(liarsImage, "Content-Type", long),
		"type-other":           answering(liarsImage, "Content-Type", "text/html; charset=\"><script>"),
		"date-odd":             answering(liarsImage, "Date", "never", "ETag", `W/"`+long+`"`, "Last-Modified", "-1", "Age", "99999999999999999999", "Expires", "0"),
		"range-odd":            refusing(http.StatusPartialContent, liarsImage, "Content-Range", "bytes 0-9/5"),
		"range-none":           refusing(http.StatusPartialContent, liarsImage),
		"range-unsatisfied":    refusing(http.StatusRequestedRangeNotSatisfiable, "", "Content-Range", "bytes */-1"),
		"range-empty":          refusing(http.StatusRequestedRangeNotSatisfiable, "", "Content-Range", "bytes */0"),
		"no-content":           refusing(http.StatusNoContent, ""),
		"not-modified":         refusing(http.StatusNotModified, ""),
		"redirect-nowhere":     refusing(http.StatusTemporaryRedirect, ""),
		"redirect-itself":      refusing(http.StatusTemporaryRedirect, "", "Location", "?"),
		"redirect-file":        refusing(http.StatusTemporaryRedirect, "", "Location", "file:///etc/passwd"),
		"redirect-data":        refusing(http.StatusTemporaryRedirect, "", "Location", "data:,{}"),
		"redirect-odd":         refusing(http.StatusTemporaryRedirect, "", "Location", "http://[::1"),
		"redirect-port":        refusing(http.StatusTemporaryRedirect, "", "Location", "http://127.0.0.1:99999/"),
		"redirect-user":        refusing(http.StatusTemporaryRedirect, "", "Location", "http://admin:hunter2@127.0.0.1:1/"),
		"redirect-long":        refusing(http.StatusTemporaryRedirect, "", "Location", "SELF/"+long),
		"redirect-twice":       refusing(http.StatusTemporaryRedirect, "", "Location", "SELF/a", "Location", "SELF/b"),
		"challenge-odd":        refusing(http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer realm="file:///etc/passwd",service=`+long),
		"challenge-itself":     refusing(http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer realm="SELF/token",service="x",scope="`+long+`"`),
		"challenge-quotes":     refusing(http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer realm="`+strings.Repeat(`\`, 9999)),
		"challenge-many":       refusing(http.StatusUnauthorized, "", "WWW-Authenticate", strings.Repeat(`Basic realm="x", `, 5000)),
		"errors-null":          refusing(http.StatusForbidden, `{"errors":null}`),
		"errors-nested":        refusing(http.StatusForbidden, strings.Repeat(`{"errors":[`, 20_000)),
		"errors-many":          refusing(http.StatusNotFound, `{"errors":[`+strings.Repeat(`{"code":"X"},`, 5000)+`{}]}`),
		"errors-long":          refusing(http.StatusForbidden, `{"errors":[{"code":"`+long+`","message":"`+long+`"}]}`),
		"throttle-for-ever":    refusing(http.StatusTooManyRequests, "", "Retry-After", "9223372036854775807"),
		"document-null":        answering("null", "Content-Type", "application/vnd.oci.image.index.v1+json"),
		"document-list":        answering("[]", "Content-Type", "application/vnd.oci.image.index.v1+json"),
		"document-nested":      answering(strings.Repeat("[", 200_000), "Content-Type", "application/vnd.oci.image.index.v1+json"),
		"document-tags":        answering(`{"name":"`+long+`","tags":["\u0000","`+long+`",null,"\ud800"]}`, "Link", "<"+long+">"),
		"document-tags-odd":    answering(`{"name":5,"tags":{"a":1}}`),
		"document-tags-nested": answering(`{"name":"x","tags":[` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `]}`),
		"document-referrers":   answering(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"` + digestOfNothing + `","size":-1,"mediaType":"` + long + `"}]}`),
		"document-annotations": answering(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"` + digestOfNothing + `","size":1,"annotations":{"\u001b[2J":"\u0000"}}]}`),
	}
	for _, status := range []int{203, 205, 226, 300, 305, 402, 418, 426, 451, 499, 511, 599, 600, 999} {
		all["status-"+strconv.Itoa(status)] = refusing(status, liarsImage, "Docker-Content-Digest", digest.FromString(liarsImage).String())
	}
	return all
}

// Whatever an upstream says, its clients get content that is what they asked for, or a short
// error, and soon.
func TestLiarsClientsGetTheContentOrAShortError(t *testing.T) {
	sites := make(map[string]*site)
	for name, handler := range liars() {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		sites[name+".test"] = &site{server: server}
	}
	larder := newNeighbours(t, sites)
	dgst := digest.FromString(liarsImage).String()
	var asking sync.WaitGroup
	for host := range sites {
		for _, resource := range []string{"manifests/v1", "manifests/" + dgst, "blobs/" + dgst, "tags/list", "referrers/" + dgst} {
			asking.Go(func() {
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					if why := larder.wrongAnswer(t, method, "/v2/"+host+"/app/"+resource); why != "" {
						t.Errorf("%s %s of %s: %s", method, resource, host, why)
					}
				}
			})
		}
	}
	asking.Wait()
	wantStatus(t, larder.get(t.Context(), "digest-other.test", manifestPath("app", "v1")), http.StatusOK) // a lie that does no harm
}

// wrongAnswer asks a question, and returns what is wrong with the answer, or nothing.
func (n *neighbours) wrongAnswer(t *testing.T, method, path string) string {
	req, err := http.NewRequestWithContext(t.Context(), method, n.server.URL+path, http.NoBody)
	if err != nil {
		return err.Error()
	}
	client := http.Client{Timeout: 90 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	resource := path[strings.LastIndex(path, "/app/")+len("/app/"):]
	header := fmt.Sprint(resp.Header)
	switch {
	case len(header) > 8<<10:
		return fmt.Sprintf("headers of %d bytes", len(header))
	case strings.Contains(string(body)+header, "hunter2"), strings.Contains(string(body)+header, "/etc/passwd"):
		return fmt.Sprintf("it says %.300s", body)
	case resp.StatusCode != http.StatusOK:
		if resp.StatusCode < 400 || resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusTooManyRequests || len(body) > 8<<10 {
			return fmt.Sprintf("%s, %d bytes: %.300s", resp.Status, len(body), body)
		}
		return ""
	case method == http.MethodHead || err != nil: // cut off
		return ""
	case strings.HasPrefix(resource, "blobs/"), strings.HasPrefix(resource, "manifests/sha256"):
		if want := resource[strings.Index(resource, "/")+1:]; digest.FromBytes(body).String() != want {
			return fmt.Sprintf("another content: %.300s", body)
		}
	case strings.HasPrefix(resource, "manifests/"):
		told := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
		if told.Validate() != nil || told.Algorithm().FromBytes(body) != told || told.Algorithm() == digest.SHA384 {
			return fmt.Sprintf("it is not %s: %.300s", told, body)
		}
	case !json.Valid(body):
		return fmt.Sprintf("it is no JSON: %.300s", body)
	}
	return ""
}
