package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
)

// maxPage is the longest page that is asked for: ECR refuses more.
const maxPage = 1000

// tagList is the body of tags/list.
type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// tags answers tags/list: from the upstream, or with the tags that are known
// here while the upstream cannot be asked.
func (p *Proxy) tags(w *recorder, r *http.Request, t target) error {
	query, n, err := page(r.URL.Query())
	if err != nil {
		return err
	}
	list := tagList{Name: requested(t), Tags: []string{}}
	state := cache.Miss
	if n != 0 {
		var link string
		list.Tags, link, err = p.upstreamTags(r, t, query)
		if err != nil && !final(err) {
			known, more, localErr := p.knownTags(t, query.Get("last"), n)
			if localErr == nil && len(known) > 0 {
				list.Tags, link, state, err = known, more, cache.Stale, nil
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
	return document(w, r, state, "application/json", body)
}

// page reads n, -1 where it is not given, and returns the query for the
// upstream: n and whatever its own Link said, without ns.
func page(q url.Values) (query url.Values, n int, err error) {
	query, n = maps.Clone(q), -1
	query.Del("ns")
	if v := q.Get("n"); v != "" {
		n, err = strconv.Atoi(v)
		if err != nil || n < 0 {
			return nil, 0, errcode.ErrorCodePaginationNumberInvalid.WithMessage("n is not a number of tags")
		}
		n = min(n, maxPage)
		query.Set("n", strconv.Itoa(n))
	}
	return query, n, nil
}

func (p *Proxy) upstreamTags(r *http.Request, t target, query url.Values) ([]string, string, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.timeout, errSlow)
	defer cancel()
	header, body, err := t.upstream.List(ctx, t.repo.Name, "tags/list", query)
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

// knownTags pages through the tags in the cache, as the specification says:
// those behind last, at most n.
func (p *Proxy) knownTags(t target, last string, n int) (tags []string, link string, err error) {
	tags, err = p.store.Tags(t.repo)
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

// referrers passes the upstream's answer on: an index, or the 404 of a registry
// without the API, on which clients use the tag instead.
func (p *Proxy) referrers(w *recorder, r *http.Request, t target) error {
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.timeout, errSlow)
	defer cancel()
	query := r.URL.Query()
	query.Del("ns")
	header, body, err := t.upstream.List(ctx, t.repo.Name, "referrers/"+t.reference, query)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex {
		return fmt.Errorf("referrers of %s@%s: the upstream's answer is no index", t.repo, t.reference)
	}
	if v := header.Get("OCI-Filters-Applied"); v != "" {
		w.Header().Set("OCI-Filters-Applied", v)
	}
	if link := header.Get("Link"); link != "" {
		w.Header().Set("Link", relink(r, link))
	}
	return document(w, r, cache.Miss, ocispec.MediaTypeImageIndex, body)
}

// final reports an upstream's own no, for which nothing here stands in.
func final(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// requested is the repository's name as the client gave it.
func requested(t target) string {
	if t.name != "" {
		return t.name
	}
	return t.host + "/" + t.rest
}

// relink turns an upstream's Link into one to this page's own path. Clients
// refuse to follow one to another host, and must come back through here.
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
	here := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	return "<" + here.String() + ">" + params
}
