package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
)

// maxPage is the longest page that an upstream is asked for. ECR refuses more.
const maxPage = 1000

// tagList is the body of tags/list.
type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// lists answers requests for lists of tags and of referrers.
type lists struct {
	store  *cache.Store
	memory memory
}

// tags answers tags/list from the upstream, or with the cached tags while the upstream
// does not answer.
func (l lists) tags(w *recorder, r *http.Request, t target) error {
	query, n, err := pageOf(r.URL.Query())
	if err != nil {
		return err
	}
	share := l.memory.share()
	defer share.release()
	list := tagList{Name: t.requested(), Tags: []string{}}
	state := cache.Miss
	if n != 0 {
		var link string
		list.Tags, link, err = upstreamTags(r, t, query, share)
		if err != nil && !isRefusal(err) {
			cached, more, cacheErr := l.cachedTags(t, query.Get("last"), n)
			if cacheErr == nil && len(cached) > 0 {
				list.Tags, link, state, err = cached, more, cache.Stale, nil
			}
		}
		if err != nil {
			return err
		}
		if link != "" {
			w.Header().Set("Link", relink(r, link))
		}
	}
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	share.decoded()
	sendDocument(w, r, state, "application/json", body)
	return nil
}

// pageOf reads n, which is -1 if it is not given. It returns the query for the upstream:
// n and what the upstream's own Link said, without ns.
func pageOf(q url.Values) (query url.Values, n int, err error) {
	query, n = maps.Clone(q), -1
	query.Del("ns")
	if v := q.Get("n"); v != "" {
		n, err = strconv.Atoi(v)
		if err != nil || n < 0 {
			return nil, 0, errPageSize
		}
		n = min(n, maxPage)
		query.Set("n", strconv.Itoa(n))
	}
	return query, n, nil
}

func upstreamTags(r *http.Request, t target, query url.Values, share *share) ([]string, string, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.timeout, errSlow)
	defer cancel()
	header, body, err := t.upstream.List(t.within(ctx, share), t.repo.Name, "tags/list", query)
	if err == nil {
		err = share.decode(ctx, len(body))
	}
	if err != nil {
		return nil, "", err
	}
	var list tagList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, "", fmt.Errorf("read the tags of %s: %w", t.repo, err)
	}
	if list.Tags == nil {
		list.Tags = []string{} // "tags": null breaks clients
	}
	slices.Sort(list.Tags)
	return list.Tags, header.Get("Link"), nil
}

// cachedTags returns a page of the cached tags, as the specification defines it: at most
// n tags that follow last.
func (l lists) cachedTags(t target, last string, n int) (tags []string, link string, err error) {
	tags, err = l.store.Tags(t.repo)
	if err != nil {
		return nil, "", err
	}
	start, found := slices.BinarySearch(tags, last)
	if found {
		start++
	}
	tags = tags[start:]
	if n >= 0 && n < len(tags) {
		tags = tags[:n]
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {tags[n-1]}}
		link = "<?" + next.Encode() + `>; rel="next"`
	}
	return tags, link, nil
}

// referrers passes on the upstream's index. Any other answer that a registry without the
// API may give, a web page included, becomes the 404 after which all clients ask by tag.
func (l lists) referrers(w *recorder, r *http.Request, t target) error {
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.timeout, errSlow)
	defer cancel()
	query := r.URL.Query()
	query.Del("ns")
	share := l.memory.share()
	defer share.release()
	header, body, err := t.upstream.List(t.within(ctx, share), t.repo.Name, "referrers/"+t.reference, query)
	if err == nil {
		err = share.decode(ctx, len(body))
	}
	var answer interface{ Unsupported() bool }
	switch {
	case errors.As(err, &answer) && answer.Unsupported():
		return fmt.Errorf("%w: %w", errNoReferrers, err)
	case err != nil:
		return err
	case !isReferrers(header, body):
		return fmt.Errorf("referrers of %s@%s: %w", t.repo, t.reference, errNoReferrers)
	}
	if v := header.Get("OCI-Filters-Applied"); v != "" {
		w.Header().Set("OCI-Filters-Applied", v)
	}
	if link := header.Get("Link"); link != "" {
		w.Header().Set("Link", relink(r, link))
	}
	share.decoded()
	sendDocument(w, r, cache.Miss, ocispec.MediaTypeImageIndex, body)
	return nil
}

// errNoReferrers says that the upstream has no list of referrers.
var errNoReferrers = fmt.Errorf("the upstream does not answer with an index of referrers: %w", fs.ErrNotExist)

// isReferrers reports whether an answer is a list of referrers: an index by its own
// mediaType or, if it has none, by its Content-Type. Clients look at the latter alone.
func isReferrers(header http.Header, body []byte) bool {
	var index *struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(body, &index) != nil || index == nil {
		return false
	}
	if index.MediaType == "" {
		contentType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
		return err == nil && contentType == ocispec.MediaTypeImageIndex
	}
	return index.MediaType == ocispec.MediaTypeImageIndex
}

// relink turns an upstream's Link into one to the path of the request. Clients do not
// follow a Link to another host, and the next page has to be requested from Larder too.
func relink(r *http.Request, link string) string {
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	next, err := url.Parse(target)
	if !ok || err != nil {
		return ""
	}
	query := next.Query()
	if ns := r.URL.Query().Get("ns"); ns != "" {
		query.Set("ns", ns)
	}
	page := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	return "<" + page.String() + ">" + params
}
