package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/containerd/platforms"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/policy"
)

// What a policy covers is decided about after the rights of the client, and before anything of it
// is sent: a manifest by itself, and a blob by the manifests of its repository that name it.

// policyHeader says of a manifest that is served what enforcing the rule would have come to.
const policyHeader = "X-Larder-Policy"

const (
	// maxNamed bounds the blobs and manifests of which it is remembered what names them. Those of
	// others are looked for in the index.
	maxNamed = 128 << 10
	// maxNoted bounds the manifests of which that is remembered.
	maxNoted = 16 << 10
	// maxListings bounds the repositories whose manifests in the index are kept for listingAge.
	maxListings = 16
	// listingAge is how often the index is read for one repository, at most: it takes some
	// milliseconds for a thousand images.
	listingAge = 10 * time.Second
	// maxNaming bounds the manifests of which it is remembered that they name one blob.
	maxNaming = 64
	// maxDecided bounds the manifests that are decided about for a request for one blob: clients ask for the
	// manifest first, whose decision is known then.
	maxDecided = 8
	// maxText bounds the text that is read to find out that it is text, in bytes. SBOMs have some MB.
	maxText = 32 << 20
)

// judge decides whether what a policy covers is served. It is safe for concurrent use.
type judge struct {
	policy *policy.Policy // nil if there is none
	store  *cache.Store
	named  *lru.Cache[cache.RepoDigest, []policy.Image] // by which manifests
	noted  *lru.Cache[cache.RepoDigest, struct{}]       // manifests whose children are in named

	reading  singleflight.Group // of the index, by repository
	listings *lru.Cache[cache.Repository, listing]
}

// listing is what the manifests of a repository name that are in the cache.
type listing struct {
	at    time.Time
	named map[digest.Digest][]cache.Manifest
}

func newJudge(p *policy.Policy, store *cache.Store) *judge {
	j := &judge{policy: p, store: store}
	// These fail only for a size that is not positive.
	j.named, _ = lru.New[cache.RepoDigest, []policy.Image](maxNamed)
	j.noted, _ = lru.New[cache.RepoDigest, struct{}](maxNoted)
	j.listings, _ = lru.New[cache.Repository, listing](maxListings)
	return j
}

// policyError is that a policy does not allow a manifest.
type policyError struct{ *policy.Decision }

func (e *policyError) Error() string { return e.String() }

// Is is for errors.Is: a refusal is fs.ErrPermission.
func (e *policyError) Is(target error) bool {
	return target == fs.ErrPermission && e.Result == policy.Refused
}

// unnamedError is that no allowed manifest of a repository names a blob. It is fs.ErrNotExist.
type unnamedError struct {
	id   cache.RepoDigest
	rule string
}

func (e *unnamedError) Error() string {
	return fmt.Sprintf("the policy %q serves a blob only if an allowed manifest of its repository names it, and none is known that names %s in %s: pull the image by its manifest first",
		e.rule, e.id.Digest, e.id.Repository)
}

// Is is for errors.Is.
func (*unnamedError) Is(target error) bool { return target == fs.ErrNotExist }

// manifest returns an error for a manifest that is not served.
func (j *judge) manifest(p *pulls, w *recorder, r *http.Request, t target, m cache.Manifest) error {
	rule := j.policy.Rule(t.repo.Upstream, t.repo.Name)
	if rule == nil {
		return nil
	}
	image := imageOf(t.repo, m)
	j.note(t.repo, m)
	d := j.policy.Known(rule, image)
	if d == nil {
		ctx, cancel := context.WithTimeoutCause(r.Context(), t.source.Timeout, errSlow)
		defer cancel()
		var err error
		if d, err = j.policy.Decide(ctx, rule, image, content{p, t}); err != nil {
			return err
		}
	}
	j.policy.Asked(rule, d, t.reference)
	switch {
	case d.Result == policy.Allowed:
		return nil
	case rule.Mode == policy.Warn:
		w.Header().Set(policyHeader, string(d.Result))
		return nil
	}
	return &policyError{d}
}

// blob returns an error for a blob that is not served.
func (j *judge) blob(p *pulls, r *http.Request, t target) error {
	rule := j.policy.Rule(t.repo.Upstream, t.repo.Name)
	if rule == nil || rule.Mode == policy.Warn {
		return nil
	}
	id := cache.RepoDigest{Repository: t.repo, Digest: t.digest}
	naming, _ := j.named.Get(id)
	if j.isAllowed(rule, naming) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), t.source.Timeout, errSlow)
	defer cancel()
	naming = j.naming(id)
	if j.isAllowed(rule, naming) {
		return nil
	}
	undecided := slices.DeleteFunc(slices.Clone(naming), func(image policy.Image) bool { return j.policy.Known(rule, image) != nil })
	for _, image := range undecided[max(0, len(undecided)-maxDecided):] { // those that were noted last
		d, err := j.policy.Decide(ctx, rule, image, content{p, t})
		if err != nil {
			return err
		}
		if d.Result == policy.Allowed {
			return nil
		}
	}
	return &unnamedError{id, rule.Name()}
}

// isAllowed reports whether one of some images is known to be allowed.
func (j *judge) isAllowed(rule *policy.Rule, images []policy.Image) bool {
	return slices.ContainsFunc(images, func(image policy.Image) bool {
		d := j.policy.Known(rule, image)
		return d != nil && d.Result == policy.Allowed
	})
}

// verify returns what the policy says about a manifest of a target's repository; nil if no rule
// covers it. An index whose scans count is as bad as the platform of this machine.
func (j *judge) verify(ctx context.Context, p *pulls, t target, m cache.Manifest) (*policy.Decision, error) {
	rule := j.policy.Rule(t.repo.Upstream, t.repo.Name)
	if rule == nil {
		return nil, nil
	}
	j.note(t.repo, m)
	d, err := j.policy.Decide(ctx, rule, imageOf(t.repo, m), content{p, t})
	if err != nil {
		return nil, err
	}
	if child, ok := ownPlatform(m); ok && rule.Findings != nil && d.Result == policy.Allowed {
		m, _, err := p.store.Manifest(ctx, t.repo, child, p.askManifest(t))
		if err != nil {
			return nil, err
		}
		if d, err = j.policy.Decide(ctx, rule, imageOf(t.repo, m), content{p, t}); err != nil {
			return nil, err
		}
	}
	now := *d
	now.Rule, now.Mode = rule.Name(), rule.Mode
	return &now, nil
}

// ownPlatform returns the manifest that a runtime on this machine takes from an index, and false if
// there is none.
func ownPlatform(m cache.Manifest) (digest.Digest, bool) {
	_, manifests, err := m.Named()
	own := platforms.Default()
	var best *ocispec.Descriptor
	for i, entry := range manifests {
		if entry.Platform != nil && own.Match(*entry.Platform) && (best == nil || own.Less(*entry.Platform, *best.Platform)) {
			best = &manifests[i]
		}
	}
	if err != nil || best == nil {
		return "", false
	}
	return best.Digest, true
}

// note notes what a manifest names, once.
func (j *judge) note(repo cache.Repository, m cache.Manifest) {
	id := cache.RepoDigest{Repository: repo, Digest: m.Digest}
	if _, known := j.noted.Get(id); known {
		return
	}
	blobs, manifests, err := m.Named()
	if err != nil {
		return // it names nothing that could be served
	}
	image := imageOf(repo, m)
	for _, child := range append(blobs, manifests...) {
		j.name(cache.RepoDigest{Repository: repo, Digest: child.Digest}, image)
	}
	j.noted.Add(id, struct{}{})
}

// name notes that a manifest names something. Two that do so at once may leave one of them out, which
// the index has.
func (j *judge) name(id cache.RepoDigest, image policy.Image) {
	naming, _ := j.named.Get(id)
	if len(naming) >= maxNaming || slices.Contains(naming, image) {
		return
	}
	j.named.Add(id, append(naming[:len(naming):len(naming)], image)) // others read the old one
}

// naming returns the manifests that name a blob or a manifest, from memory and from the index.
func (j *judge) naming(id cache.RepoDigest) []policy.Image {
	for _, m := range j.list(id.Repository)[id.Digest] {
		j.name(id, imageOf(id.Repository, m))
	}
	naming, _ := j.named.Get(id)
	return naming
}

// list returns what the manifests of a repository name that are in the cache. All who want it at once wait for one
// reading of the index.
func (j *judge) list(repo cache.Repository) map[digest.Digest][]cache.Manifest {
	known, ok := j.listings.Get(repo)
	if ok && time.Since(known.at) < listingAge {
		return known.named
	}
	named, err, _ := j.reading.Do(repo.Upstream+"/"+repo.Name, func() (any, error) {
		named, err := j.store.Naming(repo)
		if err == nil {
			j.listings.Add(repo, listing{time.Now(), named})
		}
		return named, err
	})
	if err != nil {
		return known.named // what is not in it is refused until the index can be read
	}
	return named.(map[digest.Digest][]cache.Manifest)
}

func imageOf(repo cache.Repository, m cache.Manifest) policy.Image {
	return policy.Image{Host: repo.Upstream, Repository: repo.Name, Digest: m.Digest, MediaType: m.MediaType}
}

// content is a policy.Content: what the repository of a target has.
type content struct {
	pulls *pulls
	target
}

// Naming is for [policy.Content].
func (c content) Naming(image policy.Image) []policy.Image {
	return c.pulls.judge.naming(cache.RepoDigest{Repository: c.repo, Digest: image.Digest})
}

// Manifest is for [policy.Content].
func (c content) Manifest(ctx context.Context, image policy.Image) ([]byte, error) {
	m, _, err := c.pulls.store.Manifest(ctx, c.repo, image.Digest, c.pulls.askManifest(c.target))
	return m.Raw, err
}

// IsText is for [policy.Content].
func (c content) IsText(ctx context.Context, _ policy.Image, blob digest.Digest) (bool, error) {
	t := c.target
	t.digest = blob
	opened, err := c.pulls.open(ctx, t)
	if errors.Is(err, fs.ErrNotExist) && !cache.IsPostponed(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer opened.Close()
	if opened.Size > maxText {
		return false, nil
	}
	var in io.Reader = opened.ReadSeeker
	if opened.Content != nil {
		in = bytes.NewReader(opened.Content)
	}
	return isText(ctx, in)
}

// isText reports whether a content is UTF-8 without zero bytes, and not empty. No archive is, and
// nothing compressed.
func isText(ctx context.Context, in io.Reader) (bool, error) {
	text := bufio.NewReader(in)
	for n := 0; ; n++ {
		r, size, err := text.ReadRune()
		switch {
		case errors.Is(err, io.EOF):
			return n > 0, nil
		case err != nil:
			return false, err
		case r == 0 || r == utf8.RuneError && size == 1:
			return false, nil
		case n%textCheck == 0 && ctx.Err() != nil:
			return false, context.Cause(ctx)
		}
	}
}

// textCheck is after how many characters a reader looks whether it should still read.
const textCheck = 1 << 16
