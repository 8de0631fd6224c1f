package proxy

import (
	"context"
	"embed"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/cache"
)

// PageOptions are the settings of a [Page]. Proxy is required.
type PageOptions struct {
	Proxy *Proxy
	// Name is which Larder this is, such as the node's name; Version is what it is.
	Name, Version string
	// Log is where the page reports. Nil means slog.Default().
	Log *slog.Logger
}

// Page is the status page: a few files, and a stream of events that keeps it up
// to date. It shows, and changes nothing. Run has to run for as long as it is
// served.
type Page struct {
	opts     PageOptions
	store    *cache.Store
	log      *slog.Logger
	mux      *http.ServeMux
	started  time.Time
	history  history
	board    board
	watchers watchers
	ended    chan struct{} // closed when Run has ended
}

// NewPage returns a page.
func NewPage(opts PageOptions) *Page {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	p := &Page{
		opts:    opts,
		store:   opts.Proxy.store,
		log:     opts.Log,
		mux:     http.NewServeMux(),
		started: time.Now(),
		ended:   make(chan struct{}),
	}
	p.board.changed = make(chan struct{})
	p.watchers.come = make(chan struct{})
	p.mux.HandleFunc("GET /{$}", p.index)
	p.mux.HandleFunc("GET /page/{file}", p.file)
	p.mux.HandleFunc("GET /api/v1/events", p.events)
	return p
}

//go:embed page/*.html page/*.css page/*.js page/*.svg
var pageFiles embed.FS

// ServeHTTP answers /, /page/… and /api/v1/events.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store") // the page of one version does not read another's events
	p.mux.ServeHTTP(w, r)
}

func (p *Page) index(w http.ResponseWriter, r *http.Request) {
	sendFile(w, r, "index.html", "text/html; charset=utf-8")
}

func (p *Page) file(w http.ResponseWriter, r *http.Request) {
	mediaType, ok := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}[path.Ext(r.PathValue("file"))]
	if !ok {
		http.NotFound(w, r)
		return
	}
	sendFile(w, r, r.PathValue("file"), mediaType)
}

func sendFile(w http.ResponseWriter, r *http.Request, name, mediaType string) {
	w.Header().Set("Content-Type", mediaType)
	http.ServeFileFS(w, r, pageFiles, path.Join("page", name))
}

// Intervals while somebody watches.
const (
	stateEvery  = time.Second
	imagesEvery = 10 * time.Second
	// imagesShare is the part of the time that listing images, which reads the
	// whole index, may take.
	imagesShare = 1.0 / 20
)

// maxImages bounds the images that are shown: those used last.
const maxImages = 2000

// Run samples what is done until ctx ends, and then ends the events. While
// somebody watches it also looks at what the page shows.
func (p *Page) Run(ctx context.Context) {
	defer close(p.ended)
	var loops sync.WaitGroup
	loops.Go(func() { p.sample(ctx) })
	loops.Go(func() { p.whileWatched(ctx, p.showState) })
	loops.Go(func() {
		select {
		case <-ctx.Done():
		case <-p.store.Scanned(): // which an end of the daemon must not wait for
			p.whileWatched(ctx, p.showImages)
		}
	})
	<-ctx.Done()
	loops.Wait()
}

func (p *Page) sample(ctx context.Context) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		s := sampleOf(p.opts.Proxy.Activity(), time.Now())
		p.history.add(s)
		p.show("sample", s)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// whileWatched calls show again and again, with the pauses that it returns.
func (p *Page) whileWatched(ctx context.Context, show func() (pause time.Duration)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.watchers.some():
		}
		pause := time.NewTimer(show())
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

func (p *Page) showState() time.Duration {
	p.show("state", p.opts.Proxy.State())
	p.show("evictions", append([]cache.Eviction{}, p.store.Evictions()...)) // [] rather than null, here and below
	return stateEvery
}

// imageList is the images in the cache, those used last first.
type imageList struct {
	Images []cache.ImageInfo `json:"images"`
	Total  int               `json:"total"`
}

func (p *Page) showImages() time.Duration {
	began := time.Now()
	images, err := p.store.Images()
	if err != nil {
		p.log.Warn("the status page cannot list the images", "error", err)
		return imagesEvery
	}
	slices.SortStableFunc(images, func(a, b cache.ImageInfo) int { return b.Used.Compare(a.Used) })
	p.show("images", imageList{append([]cache.ImageInfo{}, images[:min(len(images), maxImages)]...), len(images)})
	return max(imagesEvery, time.Duration(float64(time.Since(began))/imagesShare))
}

// about is which Larder this is.
type about struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

func (p *Page) about() about { return about{p.opts.Name, p.opts.Version, p.started} }
