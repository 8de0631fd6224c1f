package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/larder-registry/larder/cache"
)

// maxLink bounds the Link of an answer, in bytes: a longer query is refused when it comes back.
const maxLink = maxQuery + 512

// maxPage is the longest page that an upstream is asked for. ECR refuses more.
const maxPage = 1000

// tagList is the body of tags/list.
type tagList struct {
	Name string          `json:"name"`
	Tags json.RawMessage `json:"tags"` // an array
}

// body returns the list as JSON. Unlike json.Marshal it makes one copy of the tags.
func (l tagList) body() ([]byte, error) {
	name, err := json.Marshal(l.Name)
	return slices.Concat([]byte(`{"name":`), name, []byte(`,"tags":`), l.Tags, []byte("}")), err
}

// lists answers requests for lists of tags and, in referrers.go, of referrers.
type lists struct {
	store  *cache.Store
	memory memory

	forPeers bool // see Options
}

// tags answers tags/list from the upstream, or with the cached tags while the upstream
// does not answer.
func (l lists) tags(w *recorder, r *http.Request, t target) error {
	query, n, err := pageOf(r.URL.Query())
	if err != nil {
		return err
	}
	share := l.memory.list(t.metricName())
	defer share.release()
	list := tagList{Name: t.requested(), Tags: json.RawMessage("[]")}
	state := cache.Miss
	if n != 0 {
		var link string
		list.Tags, link, err = upstreamTags(r, t, query, share)
		if err != nil && !isRefusal(err) {
			cached, more, cacheErr := l.cachedTags(t, query.Get("last"), n)
			if cacheErr == nil && len(cached) > 0 {
				link, state = more, stateOfList(err)
				list.Tags, err = json.Marshal(cached)
			}
		}
		if err != nil {
			return err
		}
		if next := relink(r, link); next != "" {
			w.Header().Set("Link", next)
		}
	}
	body, err := list.body()
	if err != nil {
		return err
	}
	share.decoded()
	sendDocument(w, r, state, "application/json", body)
	return nil
}

// stateOfList is the state of a cached list that is served because of err.
func stateOfList(err error) cache.State {
	if cache.IsPostponed(err) {
		return cache.Hit
	}
	return cache.Stale
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

// upstreamTags returns the tags of an upstream as a JSON array, and its Link. They are sorted,
// unless the list is large: the tags of one can take ten times its size when they are decoded.
func upstreamTags(r *http.Request, t target, query url.Values, share *share) (json.RawMessage, string, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.source.Timeout, errSlow)
	defer cancel()
	header, body, err := t.source.List(t.within(ctx, share.read), t.repo.Name, "tags/list", query)
	if err == nil {
		err = share.copies(ctx, len(body))
	}
	if err != nil {
		return nil, "", err
	}
	var list tagList
	err = json.Unmarshal(body, &list)
	if err == nil && len(body) <= smallDocument {
		list.Tags, err = sorted(list.Tags)
	} else if err == nil && !bytes.HasPrefix(list.Tags, []byte("[")) {
		err = errNoTags
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the tags of %s: %w", t.repo, err)
	}
	return list.Tags, header.Get("Link"), nil
}

var errNoTags = errors.New("they are not an array")

// sorted sorts a JSON array of tags. Null becomes an empty array: it breaks clients.
func sorted(raw json.RawMessage) (json.RawMessage, error) {
	tags := []string{}
	if len(raw) > 0 && string(raw) != "null" {
		if err := json.Unmarshal(raw, &tags); err != nil {
			return nil, err
		}
	}
	slices.Sort(tags)
	return json.Marshal(tags)
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

// relink turns an upstream's Link into one to the path of the request. Clients do not
// follow a Link to another host, and the next page has to be requested from Larder too.
func relink(r *http.Request, link string) string {
	query, ok := parseLink(link)
	if !ok {
		return ""
	}
	next := linkTo(r, query) + `; rel="next"`
	if len(next) > maxLink {
		return ""
	}
	return next
}

// parseLink returns the query of the first URL of an upstream's Link. The rest of it is left
// out: it may have a URL of another host.
func parseLink(link string) (query url.Values, ok bool) {
	target, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	next, err := url.Parse(target)
	if !ok || err != nil {
		return nil, false
	}
	return next.Query(), true
}

// linkTo returns a link to the path of a request with another query, and to the same upstream.
func linkTo(r *http.Request, query url.Values) string {
	query.Del("ns")
	if ns := r.URL.Query().Get("ns"); ns != "" {
		query.Set("ns", ns)
	}
	page := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	return "<" + page.String() + ">"
}
