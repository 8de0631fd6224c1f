package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream"
)

const (
	// maxDocument bounds a manifest or a list of another node, in bytes: that of the largest manifest.
	maxDocument = 4 << 20
	// documentTimeout bounds how long a document of another node takes to come once it has begun.
	documentTimeout = 10 * time.Second
	// minRate is how many bytes a second a node must send of a blob, over rateWindow: half of what an edge
	// site has with a link of 1 Mbit/s.
	minRate    = 64 << 10
	rateWindow = 4 * time.Second
	// maxAge bounds how old an answer says that it is, in seconds: a hundred years.
	maxAge = 100 * 365 * 24 * 3600
	// maxHops bounds how many nodes pass a question on because they know of another owner: views of the
	// cluster that differ agree after a step, or soon.
	maxHops = 1
)

// Registry is an upstream: upstream.Registry.
type Registry interface {
	Manifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error)
	BlobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error)
	List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error)
}

// OpenBlob opens a range of an upstream's blob.
type OpenBlob func(ctx context.Context, repository string, dgst digest.Digest, part upstream.Range) (upstream.Content, error)

// Settings are those of a [Source].
type Settings struct {
	// Host is the upstream's, as this node and the others call it.
	Host     string
	Registry Registry
	OpenBlob OpenBlob
	// Offline reports whether the upstream must not be asked by this node. Others are asked for what they
	// have then. Nil means that it may always be.
	Offline func() bool
	// Aged is told how long ago the upstream confirmed what an answer says. Nil means that nobody wants
	// to know.
	Aged func(ctx context.Context, age time.Duration)
	// Fresh is how old what the upstream has confirmed may be.
	Fresh time.Duration
	// Hops is how many nodes the questions have come through: 0 for those of this node's own clients.
	Hops int
}

// Source is an upstream of which the nodes of the zone ask for each thing once. It is safe for concurrent use.
type Source struct {
	Settings
	peers *Peers
}

// Source returns an upstream whose content the peers share.
func (p *Peers) Source(s Settings) *Source {
	if s.Offline == nil {
		s.Offline = func() bool { return false }
	}
	if s.Aged == nil {
		s.Aged = func(context.Context, time.Duration) {}
	}
	return &Source{s, p}
}

// question is one about this upstream.
func (s *Source) question(method, repository, resource, key string) question {
	return question{
		method: method,
		path:   "/v2/" + repository + "/" + resource,
		query:  url.Values{"ns": {s.Host}},
		header: http.Header{},
		key:    key,
		hops:   s.Hops,
	}
}

// isFinal reports whether the answer of one node is that of all: others need not be asked. One that gives the
// blob to too many is not the only one, and one that cannot ask the upstream may be the only one.
func isFinal(err error) bool {
	var status statusError
	return errors.As(err, &status) && status.status != http.StatusServiceUnavailable && status.upstream == ""
}

// errUpstream is the error where other nodes have found that the upstream cannot be asked.
type errUpstream struct{ host string }

func (e errUpstream) Error() string {
	return fmt.Sprintf("%d other nodes have just asked %s for it, and cannot reach it, or are throttled", believed, e.host)
}

// askAll asks nodes until one has an answer. It reports whether the upstream is to be asked then: not if as many
// nodes as are believed have found that it cannot be.
func (s *Source) askAll(ctx context.Context, key string, some []candidate, ask func(c candidate, next string) error) (answered, tryUpstream bool) {
	failed := 0
	for i, c := range some {
		if i > 0 && s.peers.avoided.is(c.address, key, time.Now()) { // it was found silent beside the one before
			continue
		}
		next := ""
		if i+1 < len(some) {
			next = some[i+1].address
		}
		err := ask(c, next)
		if err == nil {
			return true, false
		}
		if hasFailed(err) {
			failed++
		}
		if ctx.Err() != nil || isFinal(err) {
			break
		}
	}
	return false, failed < believed
}

// errStale is the error of a node's answer that its upstream could not confirm.
func errStale(node string) error {
	return statusError{from: node, status: http.StatusOK, upstream: upstreamFailed}
}

// errOld is the error of a node's answer that is older than this node takes.
func errOld(node string) error { return statusError{from: node, status: http.StatusOK} }

// unconfirmed returns the error of an answer that is too old, or nil.
func (s *Source) unconfirmed(node string, doc *document) error {
	switch {
	case doc.header.Get(headerState) == "STALE":
		return errStale(node)
	case doc.age > 0 && doc.age >= s.Fresh:
		return errOld(node)
	}
	return nil
}

// Manifest is for [Registry]. A node's answer about a tag that it could not confirm is used if the upstream
// cannot be asked.
func (s *Source) Manifest(ctx context.Context, repository, reference string, head bool) (desc ocispec.Descriptor, raw []byte, err error) {
	key := s.Host + "/" + repository + "/manifests/" + reference
	isDigest := strings.Contains(reference, ":")
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	q := s.question(method, repository, "manifests/"+reference, key)
	var last *document
	ask := func(c candidate, next string) error {
		doc, err := s.document(ctx, c, next, q)
		if err != nil {
			return err
		}
		known, err := doc.manifest(reference, head)
		if err != nil {
			s.peers.refuted(c.address, key, err, true)
			return err
		}
		if !isDigest {
			if err := s.unconfirmed(c.address, doc); err != nil {
				if last == nil || doc.age < last.age {
					last = doc
				}
				return err
			}
		}
		desc, raw = known, doc.body
		s.aged(ctx, doc)
		return nil
	}
	tryUpstream := true
	if isDigest || !s.Offline() {
		var answered bool
		if answered, tryUpstream = s.askAll(ctx, key, s.owners(key), ask); answered {
			return desc, raw, nil
		}
	}
	err = s.askUpstream(ctx, key, tryUpstream, func() (err error) {
		desc, raw, err = s.Registry.Manifest(ctx, repository, reference, head)
		return err
	})
	if err != nil && s.isElsewhere(ctx, err) {
		if answered, _ := s.askAll(ctx, key, s.peers.elsewhere(key, s.Hops, time.Now()), ask); answered {
			return desc, raw, nil
		}
	}
	if err != nil && last != nil && ctx.Err() == nil && !isRefusal(err) {
		old, unreadable := last.manifest(reference, head)
		if unreadable == nil {
			s.aged(ctx, last)
			return old, last.body, nil
		}
	}
	return desc, raw, err
}

// owners returns the nodes to ask for a key before the upstream, in order.
func (s *Source) owners(key string) []candidate {
	return s.peers.owners(key, s.Hops, s.Offline(), time.Now())
}

// askUpstream asks the upstream for a key, with signs of life for those that wait for it. Nothing is asked if others have
// just found that it cannot be.
func (s *Source) askUpstream(ctx context.Context, key string, try bool, ask func() error) (err error) {
	if !try {
		err = errUpstream{s.Host}
		s.peers.failed.note(ctx, key, false, err)
		return err
	}
	s.peers.signs.during(key, func() { err = ask() })
	s.peers.failed.note(ctx, key, s.Offline(), err)
	return err
}

// isElsewhere reports whether other zones are asked after an error of the upstream: where it cannot be had, though nobody
// has declared it offline, and not where its answer is a refusal, or this node makes it wait.
func (s *Source) isElsewhere(ctx context.Context, err error) bool {
	var postponed interface{ Postponed() bool }
	isPostponed := errors.As(err, &postponed) && postponed.Postponed()
	return ctx.Err() == nil && !isRefusal(err) && !isPostponed && !s.Offline()
}

// BlobSize is for [Registry]. It is asked for blobs of which this node has no manifest: the upstream knows.
func (s *Source) BlobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error) {
	return s.Registry.BlobSize(ctx, repository, dgst)
}

// List is for [Registry]. Lists of tags are the upstream's.
func (s *Source) List(ctx context.Context, repository, resource string, query url.Values) (header http.Header, body []byte, err error) {
	key := s.Host + "/" + repository + "/" + resource
	isShared := strings.HasPrefix(resource, "referrers/") && len(query) == 0 && !s.Offline()
	q := s.question(http.MethodGet, repository, resource, key)
	ask := func(c candidate, next string) error {
		doc, err := s.document(ctx, c, next, q)
		if err == nil {
			err = s.unconfirmed(c.address, doc)
		}
		if err == nil && doc.header.Get("Link") != "" {
			err = errOld(c.address) // further pages are the upstream's
		}
		if err == nil {
			s.aged(ctx, doc)
			header, body = doc.header, doc.body
		}
		return err
	}
	tryUpstream := true
	if isShared {
		var answered bool
		if answered, tryUpstream = s.askAll(ctx, key, s.owners(key), ask); answered {
			return header, body, nil
		}
	}
	err = s.askUpstream(ctx, key, tryUpstream, func() (err error) {
		header, body, err = s.Registry.List(ctx, repository, resource, query)
		return err
	})
	if err != nil && isShared && s.isElsewhere(ctx, err) {
		if answered, _ := s.askAll(ctx, key, s.peers.elsewhere(key, s.Hops, time.Now()), ask); answered {
			return header, body, nil
		}
	}
	return header, body, err
}

// aged notes that a node's answer is used.
func (s *Source) aged(ctx context.Context, doc *document) {
	s.peers.metrics.asked(resultDocument)
	s.peers.metrics.took(len(doc.body))
	s.Aged(ctx, doc.age)
}

// OpenBlob is for [OpenBlob]. The bytes of other nodes come through one connection: there are none to
// spare.
func (s *Source) OpenBlob(ctx context.Context, repository string, dgst digest.Digest, part upstream.Range) (content upstream.Content, err error) {
	key := dgst.String()
	parent, hasBegun := s.peers.routes.parent(key)
	var owners []candidate
	if parent != "" || !hasBegun || !s.peers.cluster.Self().Draining { // what it has begun it ends: its successor asks it
		owners = s.owners(key)
	}
	switch {
	case part.Spare && len(owners) > 0:
		return upstream.Content{}, errors.New("a blob comes from a peer through one connection")
	case part.Spare:
		return s.Settings.OpenBlob(ctx, repository, dgst, part)
	}
	q := s.question(http.MethodGet, repository, "blobs/"+key, key)
	q.header.Set("Range", fmt.Sprintf("bytes=%d-%d", part.Off, part.Off+part.Len-1))
	ask := func(c candidate, next string) (err error) {
		content, err = s.blob(ctx, c, next, q, part.Size)
		return err
	}
	if parent != "" && len(owners) > 0 && parent != owners[0].address && !s.peers.avoided.is(parent, key, time.Now()) {
		// This node was passed on to it before.
		if err := ask(candidate{parent, true}, ""); err == nil || ctx.Err() != nil {
			return content, err
		}
	}
	answered, tryUpstream := s.askAll(ctx, key, owners, ask)
	switch {
	case answered:
		return content, nil
	case ctx.Err() != nil:
		return upstream.Content{}, context.Cause(ctx)
	}
	s.peers.routes.set(key, "", nil, false)
	err = s.askUpstream(ctx, key, tryUpstream, func() (err error) {
		content, err = s.Settings.OpenBlob(ctx, repository, dgst, part)
		return err
	})
	if len(owners) > 0 {
		s.peers.metrics.asked(resultUpstream)
	}
	if err != nil && s.isElsewhere(ctx, err) {
		if answered, _ := s.askAll(ctx, key, s.peers.elsewhere(key, s.Hops, time.Now()), ask); answered {
			return content, nil
		}
	}
	return content, err
}

// blob asks a node for a part of a blob, of which the size is known or 0.
func (s *Source) blob(ctx context.Context, c candidate, next string, q question, known int64) (upstream.Content, error) {
	a, err := s.peers.ask(ctx, c, next, q)
	if err != nil {
		return upstream.Content{}, err
	}
	size, err := sizeOf(a.Response)
	if err == nil && known > 0 && size != known {
		err = fmt.Errorf("the peer says that the blob has %d bytes, and it has %d", size, known)
		s.peers.refuted(a.from, q.key, err, a.whole())
	}
	if err != nil {
		a.Body.Close()
		return upstream.Content{}, err
	}
	s.peers.metrics.asked(resultBlob)
	path := pathOf(a.Header)
	if len(path) > maxSteps {
		a.Body.Close()
		return upstream.Content{}, errCircle
	}
	s.peers.routes.set(q.key, a.from, path, a.whole())
	body := &paced{body: a.Body, peers: s.peers, from: a.from, blob: q.key, ended: ctx.Err, began: time.Now()}
	return upstream.Content{Body: body, Whole: a.StatusCode == http.StatusOK, Size: size}, nil
}

// sizeOf returns the size of the whole blob that an answer is of.
func sizeOf(r *http.Response) (int64, error) {
	if r.StatusCode == http.StatusOK {
		return r.ContentLength, nil
	}
	_, size, _ := strings.Cut(r.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("the peer does not tell the size of the blob")
	}
	return n, nil
}

// paced is the body of another node. It ends if the node sends too slowly. Then, and when the node breaks off, the
// node is not asked for the blob for a while.
type paced struct {
	body  io.ReadCloser
	peers *Peers
	from  string
	blob  string
	ended func() error // returns an error once this node wants no more of it

	began time.Time // the window
	n     int64     // bytes in it
}

var errSlow = errors.New("the peer sends too slowly")

// Read is for io.Reader.
func (b *paced) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.n += int64(n)
	b.peers.metrics.took(n)
	if err != nil && !errors.Is(err, io.EOF) && b.ended() == nil { // asked again, it would break off again
		b.peers.avoided.slow(b.from, b.blob, "it broke off", time.Now())
	}
	if took := time.Since(b.began); err == nil && took >= rateWindow {
		if float64(b.n) < minRate*took.Seconds() {
			b.peers.avoided.slow(b.from, b.blob, errSlow.Error(), time.Now())
			return n, errSlow
		}
		b.began, b.n = time.Now(), 0
	}
	return n, err
}

// Close is for io.Closer.
func (b *paced) Close() error { return b.body.Close() }

// document is an answer in whole.
type document struct {
	header http.Header
	body   []byte
	length int64
	age    time.Duration
}

// document asks a node for a manifest or a list.
func (s *Source) document(ctx context.Context, c candidate, next string, q question) (*document, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := s.peers.ask(ctx, c, next, q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	defer time.AfterFunc(documentTimeout, cancel).Stop()
	d := &document{header: a.Header, length: a.ContentLength}
	if d.body, err = io.ReadAll(io.LimitReader(a.Body, maxDocument+1)); err != nil {
		return nil, fmt.Errorf("read the answer of the peer %s: %w", c.address, err)
	}
	if len(d.body) > maxDocument {
		return nil, statusError{from: c.address, status: http.StatusRequestEntityTooLarge}
	}
	if seconds, err := strconv.ParseInt(a.Header.Get("Age"), 10, 64); err == nil && seconds > 0 {
		d.age = time.Duration(min(seconds, maxAge)) * time.Second
	}
	return d, nil
}

// manifest returns the descriptor of a manifest, whose bytes are compared with it.
func (d *document) manifest(reference string, head bool) (ocispec.Descriptor, error) {
	mediaType, _, err := mime.ParseMediaType(d.header.Get("Content-Type"))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("the peer tells no media type: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(d.header.Get("Docker-Content-Digest")), Size: d.length}
	switch {
	case desc.Digest.Validate() != nil, strings.Contains(reference, ":") && desc.Digest.String() != reference:
		return ocispec.Descriptor{}, errors.New("the peer sends another manifest")
	case !head && desc.Digest.Algorithm().FromBytes(d.body) != desc.Digest:
		return ocispec.Descriptor{}, errors.New("the peer sends a manifest that does not match its digest")
	}
	if head {
		d.body = nil
	}
	return desc, nil
}
