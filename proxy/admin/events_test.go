package admin_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream"
)

// run runs the Admin until the function that it returns is called, which waits for it
// and for the streams. It is called in a bubble.
func (r *rig) run() (end func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.admin.Run(ctx) })
	synctest.Wait()
	return func() {
		cancel()
		running.Wait()
		synctest.Wait()
	}
}

// page is an open stream of events.
type page struct {
	t     *testing.T
	close func()

	mu    sync.Mutex // guards what follows
	resp  *httptest.ResponseRecorder
	ended bool
}

// open opens a stream of events, with headers in pairs. It is called in a bubble.
func (r *rig) open(t *testing.T, header ...string) *page {
	ctx, cancel := context.WithCancel(t.Context())
	p := &page{t: t, resp: httptest.NewRecorder()}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/events", http.NoBody)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	go func() {
		r.admin.Handler().ServeHTTP(p, req)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended = true
	}()
	synctest.Wait()
	p.close = func() {
		cancel()
		synctest.Wait()
	}
	return p
}

func (p *page) Header() http.Header { return p.resp.Header() }

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resp.Write(b)
}

func (p *page) WriteHeader(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resp.WriteHeader(status)
}

// Flush is what makes a page a stream.
func (p *page) Flush() {}

// status returns the status of the response so far.
func (p *page) status() int {
	synctest.Wait()
	return p.resp.Code
}

// isEnded reports whether the response has ended.
func (p *page) isEnded() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// times counts the events of a name.
func (p *page) times(event string) int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Count(p.resp.Body.String(), "event: "+event+"\n")
}

// last decodes the last event of a name.
func last[T any](p *page, event string) (data T) {
	p.t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.resp.Body.String()
	i := strings.LastIndex(text, "event: "+event+"\n")
	if i < 0 {
		p.t.Fatalf("there is no event %s", event)
	}
	line, _, _ := strings.Cut(strings.TrimPrefix(text[i:], "event: "+event+"\ndata: "), "\n")
	if err := json.Unmarshal([]byte(line), &data); err != nil {
		p.t.Fatalf("%s: %v: %s", event, err, line)
	}
	return data
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestEventsShowTheActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, admin.Options{
			Name: "node-1", Version: "v1",
			Upstreams: func() []upstream.Status { return []upstream.Status{{Host: "registry.test", Auth: "ecr"}} },
		})
		defer r.run()()
		p := r.open(t)
		defer p.close()
		if got := p.Header().Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type: %q", got)
		}
		if ms := last[int64](p, "time"); ms != time.Now().UnixMilli() {
			t.Errorf("time: %d", ms)
		}
		if about := last[struct{ Name, Version string }](p, "about"); about.Name != "node-1" || about.Version != "v1" {
			t.Errorf("about: %+v", about)
		}
		if h := last[admin.History](p, "history"); len(h.Hour) != 1 || len(h.Day) != 1 {
			t.Errorf("history: %+v", h)
		}
		state := last[admin.Activity](p, "state")
		if !reflect.DeepEqual(state.Traffic, proxy.Traffic{}) || state.FillsRunning == nil || len(state.Upstreams) != 1 || state.Upstreams[0].Auth != "ecr" {
			t.Errorf("state: %+v", state)
		}

		traffic := proxy.Traffic{Requests: proxy.Requests{Miss: 3}, Served: 100, Passed: 50}
		r.clients.set(traffic, proxy.Fill{Waiting: 2})
		pass(time.Second)
		if state := last[admin.Activity](p, "state"); !reflect.DeepEqual(state.Traffic, traffic) || len(state.FillsRunning) != 1 || state.FillsRunning[0].Waiting != 2 {
			t.Errorf("state after a second: %+v", state)
		}
		pass(10 * time.Second)
		if s := last[admin.Sample](p, "sample"); s.Requests != traffic.Requests || s.Served != 100 || s.Passed != 50 {
			t.Errorf("sample: %+v", s)
		}
	})
}

func TestEventsShowTheImagesToEachPageAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, admin.Options{})
		r.pull("v1", newImage(t, 1000))
		defer r.run()()
		for range 2 {
			p := r.open(t)
			defer p.close()
			list := last[struct {
				Images []cache.ImageInfo
				Total  int
			}](p, "images")
			if list.Total != 1 || len(list.Images) != 1 || list.Images[0].Tag != "v1" || !list.Images[0].Complete {
				t.Errorf("images: %+v", list)
			}
		}
	})
}

func TestEventsEndWithTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, admin.Options{})
		end := r.run()
		p := r.open(t)
		if p.isEnded() {
			t.Error("a stream has ended before the daemon")
		}
		end()
		if !p.isEnded() {
			t.Error("a stream goes on after the end of the daemon")
		}
		if late := r.open(t); !late.isEnded() || late.status() != http.StatusOK {
			t.Errorf("a stream that was opened after the end goes on, or fails: %d", late.status())
		}
	})
}

func TestAtMost32StreamsAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, admin.Options{})
		defer r.run()()
		var pages []*page
		for i := range 32 {
			p := r.open(t)
			defer p.close()
			if p.status() != http.StatusOK || p.isEnded() {
				t.Fatalf("stream %d: %d", i+1, p.status())
			}
			pages = append(pages, p)
		}
		refused := r.open(t)
		if refused.status() != http.StatusServiceUnavailable || refused.Header().Get("Retry-After") == "" || !refused.isEnded() {
			t.Errorf("stream 33: %d, Retry-After %q", refused.status(), refused.Header().Get("Retry-After"))
		}
		pages[0].close()
		again := r.open(t)
		defer again.close()
		if again.status() != http.StatusOK || again.isEnded() {
			t.Errorf("a stream after another was closed: %d", again.status())
		}
	})
}

func TestOtherSitesMayOnlyLinkToThePage(t *testing.T) {
	handler := newRig(t, cache.Options{}, admin.Options{}).admin.Handler()
	for _, test := range []struct {
		path, site, dest string
		status           int
	}{
		{"/", "cross-site", "document", http.StatusOK},
		{"/", "cross-site", "iframe", http.StatusForbidden},
		{"/", "cross-site", "", http.StatusForbidden},
		{"/", "same-origin", "document", http.StatusOK},
		{"/healthz", "cross-site", "document", http.StatusForbidden},
		{"/debug/pprof/cmdline", "cross-site", "image", http.StatusForbidden},
		{"/page/main.js", "same-site", "script", http.StatusForbidden},
		{"/page/main.js", "same-origin", "script", http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodGet, test.path, http.NoBody)
		r.Header.Set("Sec-Fetch-Site", test.site)
		r.Header.Set("Sec-Fetch-Dest", test.dest)
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != test.status {
			t.Errorf("%s from a page of %s, as %q: %d, want %d", test.path, test.site, test.dest, w.Code, test.status)
		}
	}
}

func TestOtherSitesGetNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{}, admin.Options{})
		defer r.run()()
		for site, status := range map[string]int{
			"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "same-origin": http.StatusOK, "none": http.StatusOK,
		} {
			p := r.open(t, "Sec-Fetch-Site", site)
			if p.status() != status || p.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %d, %v", site, p.status(), p.Header())
			}
			p.close()
		}
	})
}

func TestNothingIsReadWhileNoPageIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		r := newRig(t, cache.Options{}, admin.Options{Upstreams: func() []upstream.Status {
			reads.Add(1)
			return nil
		}})
		defer r.run()()
		pass(10 * time.Minute)
		if n := reads.Load(); n != 0 {
			t.Errorf("%d reads while no page was open", n)
		}
		p := r.open(t)
		pass(time.Minute)
		if n := reads.Load(); n < 50 || n > 61 {
			t.Errorf("%d reads while a page was open for a minute", n)
		}
		if n := p.times("time"); n < 4 || n > 5 {
			t.Errorf("%d heartbeats in a minute", n)
		}
		p.close()
		pass(2 * time.Second)
		before := reads.Load()
		pass(10 * time.Minute)
		if n := reads.Load(); n != before {
			t.Errorf("%d reads after the page was closed", n-before)
		}
	})
}
