package upstream

import (
	"net/url"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// locations remembers the URL that the registry redirected to for each blob, so that
// parallel and later ranges of it do not ask the registry again. It is safe for
// concurrent use.
type locations struct {
	mu   sync.Mutex // serializes put and drop: drop removes only the URL that it has looked up
	urls *lru.Cache[string, location]
}

type location struct {
	url   *url.URL
	until time.Time
}

const (
	// locationLife is how long a URL is used that does not tell its life.
	locationLife = time.Minute
	// locationMargin is the last part of a URL's life, in which it is not used: a
	// request on its way must still arrive.
	locationMargin = 30 * time.Second
)

func newLocations() *locations {
	urls, _ := lru.New[string, location](1024) // fails only for a size that is not positive
	return &locations{urls: urls}
}

func (l *locations) get(key string) (*url.URL, bool) {
	loc, ok := l.urls.Get(key)
	if !ok || time.Now().After(loc.until) {
		return nil, false
	}
	return loc.url, true
}

func (l *locations) put(key string, u *url.URL) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.urls.Add(key, location{u, time.Now().Add(urlLife(u))})
}

// drop forgets a URL, unless another one has taken its place.
func (l *locations) drop(key string, u *url.URL) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if loc, ok := l.urls.Peek(key); ok && loc.url == u {
		l.urls.Remove(key)
	}
}

// maxExpires is the longest life of a presigned URL, in seconds: seven days (AWS "Signature
// Version 4 query parameters").
const maxExpires = 7 * 24 * 3600

// urlLife returns how long a URL may be used. A presigned S3 URL tells its life in
// seconds (X-Amz-Expires; AWS "Signature Version 4 query parameters").
func urlLife(u *url.URL) time.Duration {
	s, err := strconv.Atoi(u.Query().Get("X-Amz-Expires"))
	if err != nil || s <= 0 {
		return locationLife
	}
	life := time.Duration(min(s, maxExpires)) * time.Second
	return max(life-locationMargin, life/2)
}
