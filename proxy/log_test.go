package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// logs collects what is logged.
type logs struct {
	mu  sync.Mutex // guards what follows
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// requests returns the lines about requests.
func (l *logs) requests(t *testing.T) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if m["msg"] == "request" {
			lines = append(lines, m)
		}
	}
	return lines
}

func TestEachRequestIsLoggedInOneLine(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	layer := image.Blobs[0].Digest.String()
	host := r.ecr.Host()
	r.get(manifestPath(app, "v1") + "?ns=" + host)
	r.cache(blobPath(app, image.Blobs[0].Digest))
	r.get(blobPath(app, image.Blobs[0].Digest), "Range", "bytes=0-99")
	r.head(blobPath(app, image.Blobs[0].Digest))
	r.get(manifestPath(app, "missing"))
	r.ask(http.MethodPut, manifestPath(app, "v1"))
	r.server.Close() // waits for the last line

	want := []map[string]any{
		{"level": "INFO", "method": "GET", "upstream": host, "repository": app, "reference": "v1", "status": 200., "bytes": float64(image.Root.Size), "cache": "MISS"},
		{"level": "INFO", "method": "GET", "upstream": host, "repository": app, "reference": layer, "status": 200., "bytes": 1000., "cache": "MISS"},
		{"level": "INFO", "method": "GET", "upstream": host, "repository": app, "reference": layer, "status": 206., "bytes": 100., "cache": "HIT"},
		{"level": "INFO", "method": "HEAD", "upstream": host, "repository": app, "reference": layer, "status": 200., "bytes": 0., "cache": "HIT"},
		{"level": "WARN", "method": "GET", "upstream": host, "repository": app, "reference": "missing", "status": 404., "cache": "MISS"},
		{"level": "WARN", "method": "PUT", "status": 405., "url": manifestPath(app, "v1"), "cache": "MISS"},
	}
	got := log.requests(t)
	if len(got) != len(want) {
		t.Fatalf("%d lines for %d requests:\n%s", len(got), len(want), log)
	}
	byRequest := func(a, b map[string]any) int { // a response may end before its line is written
		text := func(m map[string]any) string { return fmt.Sprint(m["method"], m["reference"], m["status"]) }
		return strings.Compare(text(a), text(b))
	}
	slices.SortFunc(got, byRequest)
	slices.SortFunc(want, byRequest)
	for i, line := range got {
		for key, value := range want[i] {
			if line[key] != value {
				t.Errorf("line %d: %s=%v, want %v", i, key, line[key], value)
			}
		}
		client, _ := line["client"].(string)
		duration, _ := line["duration"].(float64)
		if !strings.HasPrefix(client, "127.0.0.1:") || duration <= 0 {
			t.Errorf("line %d: client=%q duration=%v", i, client, line["duration"])
		}
		if failed := line["level"] == "WARN"; failed != (line["error"] != nil) {
			t.Errorf("line %d: level=%v error=%v", i, line["level"], line["error"])
		}
	}
}

func TestCutBodyIsLoggedAsAborted(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log})
	wantCut(t, r.openWrong(blobPath(app, r.addBlob(app, ecrtest.Random(1, 1000)).Digest), 0), 1000)
	r.server.Close()
	lines := log.requests(t)
	if len(lines) != 1 || lines[0]["aborted"] != true || lines[0]["level"] != "WARN" || lines[0]["error"] == nil {
		t.Errorf("%v", lines)
	}
}

func TestHangupBeforeTheResponseIsNotAFailure(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log})
	asked := make(chan struct{}, 1)
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Hang: true, Notify: func() { asked <- struct{}{} }})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan answer, 1)
	req := r.request(http.MethodGet, manifestPath(app, "v1")).WithContext(ctx)
	go func() { left <- r.try(req) }()
	<-asked
	leave()
	if a := <-left; a.err == nil {
		t.Errorf("%s", a.Status)
	}
	r.server.Close()
	lines := log.requests(t)
	if len(lines) != 1 || lines[0]["status"] != 0. || lines[0]["level"] != "INFO" || lines[0]["error"] != nil {
		t.Errorf("%v", lines)
	}
}

// Tokens and signed URLs are credentials. Errors must not have them either.
func TestLogHasNoSecrets(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log, cache: cache.Options{Segment: 64 << 10, Retry: hasty.Retry}})
	image := r.addImage("v1", ecrtest.Random(1, 1<<20))
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Times: 2, CutAfter: new(int64(1000))})
	r.get(manifestPath(app, "v1"))
	r.get(blobPath(app, image.Blobs[0].Digest))
	r.ecr.ExpireURLs()
	r.ecr.ExpireTokens()
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Status: http.StatusForbidden})
	r.get(blobPath(app, r.addBlob(app, ecrtest.Random(2, 1000)).Digest), "Authorization", "Basic c2VjcmV0OnNlY3JldA==")
	r.ecr.Stop()
	r.get(manifestPath(app, "v2"))
	r.server.Close()
	for _, secret := range []string{"X-Amz-Signature", "X-Amz-Credential", "Basic ", "c2VjcmV0", "Authorization"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, log)
		}
	}
}

func TestLogLineIsShortWhateverTheClientSends(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log})
	long := strings.Repeat("x", 100<<10)
	for _, req := range []*http.Request{
		r.request(http.MethodGet, "/v2/"+long+"/manifests/v1"),
		r.request(http.MethodGet, "/v2/"+app+"/manifests/"+long),
		r.request(http.MethodGet, "/"+long),
		r.request(http.MethodGet, "/v2/?ns="+long),
		r.request(http.MethodGet, "/v2/"+app+"/tags/list?last="+long),
		r.request(strings.Repeat("X", 100<<10), "/v2/"),
		r.request(http.MethodGet, "/v2/"+app+"/manifests/v1", "User-Agent", long),
	} {
		if a := r.try(req); a.err != nil {
			t.Error(a.err)
		}
	}
	r.server.Close() // waits for the last line
	if n := len(log.requests(t)); n != 7 {
		t.Fatalf("%d lines for 7 requests", n)
	}
	for line := range strings.Lines(log.String()) {
		if len(line) > 1500 {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}

func TestLogShowsOfAQueryOnlyTheUpstream(t *testing.T) {
	log := new(logs)
	r := newRig(t, settings{log: log})
	for _, path := range []string{"/v2/?ns=unknown.test&token=hunter2", "/x?X-Amz-Signature=hunter2", "/v2/UPPER/manifests/v1?sig=hunter2", "/v2/" + app + "/tags/list?last=hunter2"} {
		r.try(r.request(http.MethodGet, path))
	}
	r.server.Close() // waits for the last line
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "ns=unknown.test") {
		t.Errorf("the log says %s", text)
	}
}
