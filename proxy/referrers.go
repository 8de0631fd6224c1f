package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
)

const (
	// maxReferrers bounds an upstream's list of referrers, in bytes, with all of its pages. It
	// is what clients take of a manifest, and some 10,000 referrers.
	maxReferrers = 4 << 20
	// maxReferrersPages bounds the pages of such a list. ECR puts 50 referrers on one.
	maxReferrersPages = 200
	// maxReferrersPage bounds the referrers of one answer, in bytes. Some clients, such as
	// crane and cosign, look at the first page only; ORAS takes at most 4 MiB.
	maxReferrersPage = 2 << 20
)

var (
	errManyReferrers = fmt.Errorf("the upstream's list of referrers has more than %d bytes or %d pages", maxReferrers, maxReferrersPages)
	errReferrersLink = errors.New("the upstream's list of referrers has a Link that leads nowhere")
)

// referrers answers with the manifests that refer to a digest, filtered by their type. The
// store has the upstream's whole list, so that it can be filtered without the upstream.
func (l lists) referrers(w *recorder, r *http.Request, t target) error {
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.source.Timeout, errSlow)
	defer cancel()
	share := l.memory.list(t.metricName())
	defer share.end()
	list, state, err := l.store.Referrers(ctx, t.repo, t.digest, l.askReferrers(t, share))
	if err != nil {
		w.Header().Set(xCache, string(state))
		return err
	}
	query := r.URL.Query()
	if types := query["artifactType"]; len(types) > 0 {
		list = ofTypes(list, types)
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	index, next, err := pageOfReferrers(list, digest.Digest(query.Get("last")))
	if err == nil {
		err = share.hold(ctx, int64(len(index)))
	}
	if err != nil {
		return err
	}
	if next != "" {
		query.Set("last", next.String())
		w.Header().Set("Link", linkTo(r, query)+`; rel="next"`)
	}
	if l.forPeers {
		setAge(w.Header(), l.store.ReferrersChecked(t.repo, t.digest))
	}
	sendDocument(w, r, state, ocispec.MediaTypeImageIndex, index)
	return nil
}

// ofTypes returns the referrers of any of the types.
func ofTypes(list []ocispec.Descriptor, types []string) []ocispec.Descriptor {
	var some []ocispec.Descriptor
	for _, d := range list {
		if slices.Contains(types, d.ArtifactType) {
			some = append(some, d)
		}
	}
	return some
}

// pageOfReferrers returns an index of the referrers that follow last, as many as fit. If there
// are more, next is the last one of them. If last is not in the list, which may have changed,
// the page is the first one.
func pageOfReferrers(list []ocispec.Descriptor, last digest.Digest) (index []byte, next digest.Digest, err error) {
	start := 1 + slices.IndexFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == last })
	entries := []json.RawMessage{} // an array, even if it is empty
	bytes := 0
	for i, d := range list[start:] {
		entry, err := json.Marshal(d)
		if err != nil {
			return nil, "", err
		}
		if bytes += len(entry); bytes > maxReferrersPage && i > 0 {
			next = list[start+i-1].Digest
			break
		}
		entries = append(entries, entry)
	}
	index, err = json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, entries})
	return index, next, err
}

// askReferrers is how the store asks the upstream for all referrers of a digest. What a large
// list takes of the memory is counted until share ends, which is that of a client.
func (l lists) askReferrers(t target, share *share) cache.AskReferrers {
	return func(ctx context.Context) ([]ocispec.Descriptor, error) {
		own := l.memory.list(t.metricName())
		defer own.moveTo(share)
		pages := referrersPages{target: t, share: own, next: make(url.Values)}
		for end := time.Now().Add(t.source.Timeout); pages.next != nil; {
			if time.Now().After(end) {
				return nil, fmt.Errorf("further pages of referrers of %s@%s: %w", t.repo, t.digest, errSlow)
			}
			if err := pages.read(ctx); err != nil {
				return nil, err
			}
		}
		return pages.list, nil
	}
}

// referrersPages reads the pages of an upstream's list, one after the other.
type referrersPages struct {
	target
	share *share
	next  url.Values // the query of the next page; nil after the last one
	pages int        // that were read
	bytes int        // of these pages
	list  []ocispec.Descriptor
}

// read reads the next page. Any answer that a registry without the API may give to the first
// question, a web page included, becomes the 404 after which all clients ask by tag.
func (p *referrersPages) read(ctx context.Context) error {
	if p.pages == maxReferrersPages {
		return errManyReferrers
	}
	if p.bytes > smallDocument {
		if err := p.share.hold(ctx, maxReferrers); err != nil {
			return err
		}
	}
	header, body, err := p.source.List(p.within(ctx, p.admit), p.repo.Name, "referrers/"+p.digest.String(), p.next)
	if err == nil {
		err = p.share.decode(ctx, len(body))
	}
	if err == nil {
		err = p.add(header, body)
	}
	p.share.decoded()
	switch {
	case err != nil && p.pages > 0 && errors.Is(err, fs.ErrNotExist): // clients would take it for an answer
		return fmt.Errorf("page %d of the referrers of %s@%s: %s", p.pages+1, p.repo, p.digest, err.Error())
	case err != nil:
		return asReferrersError(err)
	}
	p.pages++
	return nil
}

// admit admits a large page: it counts as the largest list.
func (p *referrersPages) admit(ctx context.Context, size int64) error {
	if size > maxReferrers {
		return errManyReferrers
	}
	return p.share.hold(ctx, maxReferrers)
}

// add adds a page to the list. It leaves out what an earlier page has: pages may overlap if
// the list changes meanwhile.
func (p *referrersPages) add(header http.Header, body []byte) error {
	if p.bytes += len(body); p.bytes > maxReferrers {
		return errManyReferrers
	}
	entries, ok := referrersIn(header, body)
	if !ok {
		return fmt.Errorf("referrers of %s@%s: %w", p.repo, p.digest, cache.ErrNoReferrers)
	}
	listed := make(map[digest.Digest]bool)
	for _, d := range p.list {
		listed[d.Digest] = true
	}
	for _, entry := range entries {
		var d ocispec.Descriptor
		if err := json.Unmarshal(entry, &d); err != nil {
			return fmt.Errorf("read the referrers of %s@%s: %w", p.repo, p.digest, err)
		}
		if !listed[d.Digest] {
			listed[d.Digest] = true
			p.list = append(p.list, d)
		}
	}
	link := header.Get("Link")
	if link == "" {
		p.next = nil
		return nil
	}
	next, ok := parseLink(link)
	if !ok || next.Encode() == p.next.Encode() {
		return errReferrersLink
	}
	p.next = next
	return nil
}

// referrersIn returns the entries of a list of referrers: of an index by its own mediaType or,
// if it has none, by its Content-Type. Clients look at the latter alone. ok is false for any
// other answer.
func referrersIn(header http.Header, body []byte) (entries []json.RawMessage, ok bool) {
	var index *struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(body, &index) != nil || index == nil {
		return nil, false
	}
	if index.MediaType == "" {
		contentType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
		return index.Manifests, err == nil && contentType == ocispec.MediaTypeImageIndex
	}
	return index.Manifests, index.MediaType == ocispec.MediaTypeImageIndex
}

// asReferrersError makes an error cache.ErrNoReferrers if the upstream has no lists. To ORAS,
// NAME_UNKNOWN means that there is no repository, and then it does not ask by tag.
func asReferrersError(err error) error {
	var answer interface{ Unsupported() bool }
	var detail errcode.Error
	switch {
	case !errors.As(err, &answer) || !answer.Unsupported():
		return err
	case errors.Is(err, fs.ErrNotExist) && errors.As(err, &detail) && detail.Code == errcode.ErrorCodeNameUnknown:
		return err
	}
	return fmt.Errorf("%w: %w", cache.ErrNoReferrers, err)
}
