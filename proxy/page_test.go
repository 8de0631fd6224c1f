package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// watched is a status page that is served.
type watched struct {
	*httptest.Server
	quit func() // ends Run and waits for it
}

func (r *rig) servePage(opts proxy.PageOptions) *watched {
	r.t.Helper()
	opts.Proxy, opts.Log = r.proxy, slog.New(slog.DiscardHandler)
	page := proxy.NewPage(opts)
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { page.Run(ctx) })
	w := &watched{Server: httptest.NewServer(page), quit: func() {
		cancel()
		running.Wait()
	}}
	r.t.Cleanup(func() {
		w.quit()
		w.Close()
	})
	return w
}

// follow opens the stream of events, with headers in pairs.
func (w *watched) follow(t *testing.T, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// await reads events until there is one of this name whose data, as T, is as
// wanted.
func await[T any](t *testing.T, events *bufio.Scanner, name string, want func(T) bool) {
	t.Helper()
	var event string
	for events.Scan() {
		field, value, _ := strings.Cut(events.Text(), ": ")
		switch {
		case field == "event":
			event = value
		case field == "data" && event == name:
			var data T
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				t.Fatalf("%s: %v: %s", event, err, value)
			}
			if want(data) {
				return
			}
		}
	}
	t.Fatalf("the events ended before the %s that is waited for: %v", name, events.Err())
}

func newEvents(body io.Reader) *bufio.Scanner {
	events := bufio.NewScanner(body)
	events.Buffer(nil, 1<<20)
	return events
}

func TestPageIsOfFilesThatABrowserMayTrust(t *testing.T) {
	r := newRig(t, settings{})
	page := proxy.NewPage(proxy.PageOptions{Proxy: r.proxy})
	files, err := fs.Glob(os.DirFS("page"), "*.[cjs]*")
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	types := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	paths := map[string]string{"/": "text/html; charset=utf-8"}
	for _, file := range files {
		_, ext, _ := strings.Cut(file, ".")
		paths["/page/"+file] = types[ext]
	}
	delete(paths, "/page/screenshot.png")
	for path, mediaType := range paths {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || w.Header().Get("Content-Type") != mediaType {
			t.Errorf("%s: %d, %d bytes of %q, want %q", path, w.Code, w.Body.Len(), w.Header().Get("Content-Type"), mediaType)
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: Content-Security-Policy: %q", path, policy)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options: %q", path, got)
		}
		if other := regexp.MustCompile(`https?://[^"'\s]*`).FindString(w.Body.String()); other != "" && !strings.HasPrefix(other, "http://www.w3.org/") {
			t.Errorf("%s names %s", path, other)
		}
		if taken := regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(| style="| on[a-z]+="`).FindString(w.Body.String()); taken != "" {
			t.Errorf("%s has %q, which takes text for code or is against the policy", path, taken)
		}
	}
}

func TestPageHasNothingElseAndChangesNothing(t *testing.T) {
	r := newRig(t, settings{})
	page := proxy.NewPage(proxy.PageOptions{Proxy: r.proxy})
	for request, status := range map[string]int{
		"GET /page/none.js":        http.StatusNotFound,
		"GET /page/screenshot.png": http.StatusNotFound,
		"GET /page/":               http.StatusNotFound,
		"GET /page/..%2fpage.go":   http.StatusNotFound,
		"GET /api/v1/images":       http.StatusNotFound,
		"DELETE /api/v1/images":    http.StatusNotFound,
		"POST /api/v1/events":      http.StatusMethodNotAllowed,
		"POST /":                   http.StatusMethodNotAllowed,
		"HEAD /":                   http.StatusOK,
	} {
		method, target, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(method, target, http.NoBody))
		if w.Code != status {
			t.Errorf("%s: %d, want %d", request, w.Code, status)
		}
	}
}

func TestEventsTellWhatHappens(t *testing.T) {
	r := newRig(t, settings{})
	image := r.addImage("v1", ecrtest.Random(1, 100_000))
	w := r.servePage(proxy.PageOptions{Name: "node-1"})
	resp := w.follow(t)
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type: %q", got)
	}
	events := newEvents(resp.Body)
	await(t, events, "time", func(ms int64) bool { return time.Since(time.UnixMilli(ms)) < time.Minute })
	await(t, events, "about", func(about struct{ Name string }) bool { return about.Name == "node-1" })
	await(t, events, "history", func(h proxy.History) bool { return len(h.Hour) == len(h.Day) })
	await(t, events, "state", func(a proxy.State) bool {
		return a.Requests == (proxy.Requests{}) && a.FillsRunning != nil && len(a.Upstreams) == 1 && a.Upstreams[0].Auth == "ecr"
	})

	heal := r.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Digest: image.Blobs[0].Digest, Hang: true})
	pulled := make(chan error, 1)
	go func() { pulled <- r.pull(t.Context(), "v1") }()
	await(t, events, "state", func(a proxy.State) bool {
		return len(a.FillsRunning) == 1 && a.FillsRunning[0].Digest == image.Blobs[0].Digest && a.FillsRunning[0].Waiting == 1
	})
	heal()
	if err := <-pulled; err != nil {
		t.Fatal(err)
	}
	await(t, events, "state", func(a proxy.State) bool { return a.Requests.Miss > 0 && len(a.FillsRunning) == 0 })
}

// Another one who comes while somebody watches hears at once what there is.
func TestEventsHaveTheImages(t *testing.T) {
	r := newRig(t, settings{})
	r.addImage("v1", ecrtest.Random(1, 1000))
	if err := r.pull(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	r.restart() // which waits for what is being committed
	w := r.servePage(proxy.PageOptions{})
	for range 2 {
		await(t, newEvents(w.follow(t).Body), "images", func(list struct {
			Images []cache.ImageInfo
			Total  int
		}) bool {
			return list.Total == 1 && len(list.Images) == 1 && list.Images[0].Tag == "v1" && list.Images[0].Complete
		})
	}
}

func TestEventsEndWhenTheDaemonDrains(t *testing.T) {
	r := newRig(t, settings{})
	w := r.servePage(proxy.PageOptions{})
	resp := w.follow(t)
	await(t, newEvents(resp.Body), "state", func(proxy.State) bool { return true })
	w.quit()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream was cut rather than ended: %v", err)
	}
	if _, err := io.Copy(io.Discard, w.follow(t).Body); err != nil { // one who comes late
		t.Error(err)
	}
}

func TestPagesThatAreOpenAreBounded(t *testing.T) {
	r := newRig(t, settings{})
	w := r.servePage(proxy.PageOptions{})
	var last *http.Response
	for range 32 {
		if last = w.follow(t); last.StatusCode != http.StatusOK {
			t.Fatal(last.Status)
		}
	}
	refused := w.follow(t)
	if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s", refused.Status)
	}
	last.Body.Close()
	for resp := refused; resp.StatusCode != http.StatusOK; { // as soon as the daemon has noticed
		resp = w.follow(t)
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
		}
	}
}

func TestOtherSitesGetNoEvents(t *testing.T) {
	r := newRig(t, settings{})
	w := r.servePage(proxy.PageOptions{})
	for site, status := range map[string]int{
		"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "same-origin": http.StatusOK, "none": http.StatusOK,
	} {
		resp := w.follow(t, "Sec-Fetch-Site", site)
		if resp.StatusCode != status || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %s, %v", site, resp.Status, resp.Header)
		}
	}
}

// heard is a client in a bubble.
type heard struct {
	*httptest.ResponseRecorder
	mu sync.Mutex // guards what is recorded
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ResponseRecorder.Write(p)
}

func (h *heard) times(event string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.Body.String(), "event: "+event+"\n")
}

func TestNothingIsLookedAtWhileNobodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := cache.Open(t.TempDir(), cache.Options{Log: slog.New(slog.DiscardHandler), ScrubEvery: -1})
		if err != nil {
			t.Fatal(err)
		}
		var looks atomic.Int64
		page := proxy.NewPage(proxy.PageOptions{
			Proxy: proxy.New(proxy.Options{Store: store, Status: func() []proxy.UpstreamStatus {
				looks.Add(1)
				return nil
			}}),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { page.Run(ctx) })
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		pass(10 * time.Minute)
		if n := looks.Load(); n != 0 {
			t.Errorf("%d looks while nobody watched", n)
		}
		client := &heard{ResponseRecorder: httptest.NewRecorder()}
		watching, leave := context.WithCancel(t.Context())
		running.Go(func() {
			page.ServeHTTP(client, httptest.NewRequestWithContext(watching, http.MethodGet, "/api/v1/events", http.NoBody))
		})
		pass(time.Minute)
		if n := looks.Load(); n < 50 || n > 61 {
			t.Errorf("%d looks while somebody watched for a minute", n)
		}
		if n := client.times("time"); n < 4 || n > 5 {
			t.Errorf("told the time %d times in a minute", n)
		}
		leave()
		pass(2 * time.Second)
		before := looks.Load()
		pass(10 * time.Minute)
		if n := looks.Load(); n != before {
			t.Errorf("%d looks after everybody had left", n-before)
		}
		cancel()
		running.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}
