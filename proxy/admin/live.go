package admin

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/policy"
)

// Pauses between two looks while pages are open.
const (
	stateEvery  = time.Second
	imagesEvery = 10 * time.Second
	// imagesShare bounds the part of the time that is spent listing images, which
	// reads the whole index.
	imagesShare = 1.0 / 20
)

// maxImages bounds the images that a page shows: those used last.
const maxImages = 2000

// live keeps the status pages up to date.
type live struct {
	store   *cache.Store
	monitor *monitor
	panels  []panel
	log     *slog.Logger
	history history
	events  *events
}

// panel is a part of the page with an event of its own. state is called each second while pages are open, so it must be
// cheap and must not block.
type panel struct {
	event string
	state func() any
}

// about says which Larder this is.
type about struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

func newLive(store *cache.Store, m *monitor, which about, panels []panel, log *slog.Logger) *live {
	l := &live{store: store, monitor: m, panels: panels, log: log}
	l.events = newEvents(log, func(s *stream) {
		s.send("about", which)
		s.send("history", l.history.all())
	})
	return l
}

// run samples the activity until ctx ends, and then ends the event streams. While
// pages are open it also shows what they show.
func (l *live) run(ctx context.Context) {
	defer l.events.end()
	var loops sync.WaitGroup
	loops.Go(func() { l.sample(ctx) })
	loops.Go(func() { l.whileWatched(ctx, l.showState) })
	loops.Go(func() {
		select {
		case <-ctx.Done():
		case <-l.store.Loaded(): // Images blocks until then, which must not delay the end
			l.whileWatched(ctx, l.showImages)
		}
	})
	<-ctx.Done()
	loops.Wait()
}

func (l *live) sample(ctx context.Context) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		s := l.monitor.sample(time.Now())
		l.history.add(s)
		l.events.show("sample", s)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// whileWatched calls show again and again while pages are open, with the pauses that
// it returns.
func (l *live) whileWatched(ctx context.Context, show func() (pause time.Duration)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.events.watched():
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

func (l *live) showState() time.Duration {
	l.events.show("state", l.monitor.activity())
	for _, p := range l.panels {
		l.events.show(p.event, p.state())
	}
	l.events.show("evictions", append([]cache.Eviction{}, l.store.Evictions()...)) // [] rather than null, here and below
	return stateEvery
}

// imageList lists the images in the cache, those used last first.
type imageList struct {
	Images []shownImage `json:"images"`
	Total  int          `json:"total"`
}

// shownImage is an image with what the policy has decided about it; nil for nothing.
type shownImage struct {
	cache.ImageInfo
	Policy *verdict `json:"policy,omitempty"`
}

// verdict is what of a decision the page shows.
type verdict struct {
	Rule   string        `json:"rule"`
	Mode   policy.Mode   `json:"mode"`
	Result policy.Result `json:"result"`
	Exempt bool          `json:"exempt,omitempty"`
	Why    string        `json:"why"`
}

func (l *live) showImages() time.Duration {
	began := time.Now()
	images, err := l.store.Images()
	if err != nil {
		l.log.Warn("the status page cannot list the images", "error", err)
		return imagesEvery
	}
	slices.SortStableFunc(images, func(a, b cache.ImageInfo) int { return b.Used.Compare(a.Used) })
	shown := []shownImage{}
	for _, image := range images[:min(len(images), maxImages)] {
		shown = append(shown, shownImage{image, l.verdictOf(image)})
	}
	l.events.show("images", imageList{shown, len(images)})
	return max(imagesEvery, time.Duration(float64(time.Since(began))/imagesShare))
}

// verdictOf returns what the policy has decided about an image.
func (l *live) verdictOf(image cache.ImageInfo) *verdict {
	d := l.monitor.policy.Last(policy.Image{Host: image.Upstream, Repository: image.Repository, Digest: image.Digest})
	if d == nil {
		return nil
	}
	return &verdict{d.Rule, d.Mode, d.Result, d.Exempt, d.Why()}
}
