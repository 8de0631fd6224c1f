package carry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/sign"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

// ImportRequest is the body of POST /api/v1/imports.
type ImportRequest struct {
	// Bundle is what pins and the log call what is imported, such as the name of its file.
	Bundle string `json:"bundle"`
	// NoPin leaves the images to eviction.
	NoPin bool `json:"noPin,omitempty"`
	// AsLocal allows images whose digests are not those of their registry. Their tags are not
	// compared with it.
	AsLocal bool `json:"asLocal,omitempty"`
	// DryRun imports nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Replace says when images of earlier bundles are unpinned that this one does not have.
	Replace Replace `json:"replace,omitempty"`
}

// Replace says when images of earlier bundles are unpinned.
type Replace string

// The values of a Replace.
const (
	ReplaceNever Replace = ""
	ReplaceAfter Replace = "after" // the new images are visible
	ReplaceFirst Replace = "first" // so that their space can be had
)

// ImportSession is the line of the answer to POST /api/v1/imports. After it, the answer goes on
// until the client leaves.
type ImportSession struct {
	ID string `json:"id"`
}

// ImportLayout is the body of POST /api/v1/imports/<id>/layout: what the files say about
// themselves.
type ImportLayout struct {
	Documents bundle.Documents `json:"documents"`
	// Blobs are those of the files. A bundle names its own.
	Blobs []bundle.Blob `json:"blobs,omitempty"`
}

// ImportPlan is the last line of the answer to POST /api/v1/imports/<id>/layout. Others have
// the progress of verifying what is here.
type ImportPlan struct {
	Progress *Progress          `json:"progress,omitempty"`
	Space    *cache.ImportSpace `json:"space,omitempty"`
	Images   []ImportImage      `json:"images,omitempty"`
	// Lacking are the blobs that the client has to bring.
	Lacking []digest.Digest `json:"lacking,omitempty"`
	// SignedBy is the key of the site that verified the signature.
	SignedBy string `json:"signedBy,omitempty"`
	// Unpinned are the images that were unpinned first.
	Unpinned []string `json:"unpinned,omitempty"`
	Error    string   `json:"error,omitempty"`
}

// ImportImage is an image of a bundle.
type ImportImage struct {
	Name      string         `json:"name"`
	Digest    digest.Digest  `json:"digest"`
	Platforms []bundle.Child `json:"platforms,omitempty"`
	LeftOut   []bundle.Child `json:"leftOut,omitempty"`
	Referrers int            `json:"referrers,omitempty"`
	State     ImportState    `json:"state"`
	// Parts are those that an image waits for.
	Parts []int  `json:"parts,omitempty"`
	Error string `json:"error,omitempty"`
	// Warning says why no client is served the image, although it is here.
	Warning string `json:"warning,omitempty"`
}

// ImportState says what has become of an image.
type ImportState string

// The states of an image.
const (
	Planned  ImportState = "planned"
	Imported ImportState = "imported"
	Waiting  ImportState = "waiting" // for other parts of the bundle
	Failed   ImportState = "failed"
)

// ImportReport is the answer to POST /api/v1/imports/<id>/publish.
type ImportReport struct {
	Images   []ImportImage `json:"images"`
	Unpinned []string      `json:"unpinned,omitempty"`
}

// importing is a session.
type importing struct {
	api     *API
	request ImportRequest
	content *cache.Import
	hold    *cache.Hold // for reading

	mu          sync.Mutex          // guards what follows
	layout      *bundle.Layout      // nil until the client has told it
	description *bundle.Description // nil for a layout of another tool
}

// beginImport opens a session.
func (a *API) beginImport(w http.ResponseWriter, r *http.Request) error {
	var req ImportRequest
	if err := answer.Read(r, maxRequest, &req); err != nil {
		return err
	}
	content, err := a.store.Import()
	if err != nil {
		return err
	}
	defer content.Close()
	hold, err := a.store.Hold()
	if err != nil {
		return err
	}
	defer hold.Close()
	id, remove := a.imports.add(&importing{api: a, request: req, content: content, hold: hold})
	defer remove()
	answer.NewLines(w).Send(ImportSession{id})
	<-r.Context().Done()
	return nil
}

// importLayout reads what the files say about themselves, verifies the signature and reserves
// the space.
func (a *API) importLayout(w http.ResponseWriter, r *http.Request) error {
	s, done, err := a.imports.use(r)
	if err != nil {
		return err
	}
	defer done()
	var told ImportLayout
	if err := answer.Read(r, maxLayout, &told); err != nil {
		return err
	}
	lines := answer.NewLines(w)
	plan, err := s.plan(r.Context(), told, progressTo(lines))
	if err != nil {
		plan.Error = err.Error()
	}
	lines.Send(plan)
	return nil
}

// maxLayout is the size of the largest request with a layout, in bytes: its documents in
// base64, and its blobs.
const maxLayout = 2*bundle.MaxDocuments + 32<<20

// plan checks a layout and reserves its space. The plan is of use after an error too.
func (s *importing) plan(ctx context.Context, told ImportLayout, progress func(done, total int64)) (plan ImportPlan, err error) {
	description, err := told.Documents.Description()
	if err != nil {
		return plan, err
	}
	if plan.SignedBy, err = s.api.verify(ctx, description, told.Documents.Signature()); err != nil {
		return plan, err
	}
	digests := make([]digest.Digest, len(told.Blobs))
	for i, b := range told.Blobs {
		digests[i] = b.Digest
	}
	layout, err := told.Documents.Layout(description, digests)
	switch {
	case err != nil:
		return plan, err
	case len(layout.Images) == 0:
		return plan, errNoImages
	case layout.Rebuilt && !s.request.AsLocal:
		return plan, errRebuilt
	}
	for _, image := range layout.Images {
		plan.Images = append(plan.Images, s.described(image, Planned))
	}
	brought, needed := told.Blobs, []bundle.Blob(nil)
	if description != nil {
		brought = description.Blobs
		for _, b := range description.Present {
			if s.has(b.Digest) { // else publish tells
				needed = append(needed, b)
			}
		}
	}
	if s.request.Replace == ReplaceFirst && !s.request.DryRun {
		if err := s.content.CheckFitsAlone(contentsOf(append(slices.Clone(brought), needed...))); err != nil {
			return plan, err // the images of earlier bundles would lose their pins for nothing
		}
		if plan.Unpinned, err = s.unpinOthers(layout); err != nil {
			return plan, err
		}
	}
	space, err := s.reserve(ctx, append(slices.Clone(brought), needed...), progress)
	plan.Space = &space
	if err != nil {
		return plan, err
	}
	plan.Lacking = space.Lacking
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layout, s.description = layout, description
	return plan, nil
}

var (
	errDryRun   = errors.New("nothing is imported in a dry run")
	errNoImages = errors.New("it has no image with a name")
	errRebuilt  = errors.New("it was saved from Docker's own storage, so that the digests of its images are not those of their registry: " +
		"copy the images from there, or import them with --as-local")
	errUnsigned = errors.New("import.verify requires a signature, and only bundles have one: this is a layout of another tool")
)

// verify returns the key that signed a bundle, or "" if the site requires no signature.
func (a *API) verify(ctx context.Context, description *bundle.Description, signature []byte) (string, error) {
	keys, err := a.keys(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("import.verify: %w", err)
	case len(keys) == 0:
		return "", nil
	case description == nil:
		return "", errUnsigned
	}
	key, err := sign.Verify(description.Raw(), signature, keys...)
	if err != nil {
		return "", &bundle.EntryError{Name: bundle.SignatureFile, Err: fmt.Errorf("import.verify: %w", err)}
	}
	return key.String(), nil
}

// reserve reserves space for blobs, or tells what they take. Those in Lacking are not here.
func (s *importing) reserve(ctx context.Context, all []bundle.Blob, progress func(done, total int64)) (cache.ImportSpace, error) {
	contents := contentsOf(all)
	if s.request.DryRun {
		return s.content.Space(contents)
	}
	return s.content.Reserve(ctx, contents, progress)
}

// contentsOf returns blobs of a bundle as the cache takes them.
func contentsOf(all []bundle.Blob) []cache.ImportBlob {
	contents := make([]cache.ImportBlob, len(all))
	for i, b := range all {
		contents[i] = cache.ImportBlob{Digest: b.Digest, Size: b.Size}
	}
	return contents
}

// described returns what is told of an image.
func (s *importing) described(image bundle.Image, state ImportState) ImportImage {
	told := ImportImage{
		Name: image.Name, Digest: image.Digest, Platforms: image.Platforms, LeftOut: image.LeftOut,
		Referrers: len(image.Referrers), State: state,
	}
	if served := s.api.opts.Served; served != nil {
		if parsed, err := parseName(image); err == nil {
			if err := served(parsed.Host, parsed.Repository); err != nil {
				told.Warning = err.Error()
			}
		}
	}
	return told
}

// importBlob stores a blob.
func (a *API) importBlob(w http.ResponseWriter, r *http.Request) error {
	s, done, err := a.imports.use(r)
	if err != nil {
		return err
	}
	defer done()
	b := cache.ImportBlob{Digest: digest.Digest(r.PathValue("digest")), Size: r.ContentLength}
	if err := s.mayBring(r.Context(), b); err != nil {
		return err
	}
	if err := s.content.Put(r.Context(), b, r.Body); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, r.Body) // what was not needed: an answer before its end may be lost with the connection
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// mayBring returns an error for a blob that is not of the bundle. Before the client has told
// the layout, which may be the last thing in its file, any blob is, unless signatures are
// required.
func (s *importing) mayBring(ctx context.Context, b cache.ImportBlob) error {
	s.mu.Lock()
	layout, description := s.layout, s.description
	s.mu.Unlock()
	if s.request.DryRun {
		return errDryRun
	}
	if description != nil {
		if _, ok := description.Blob(b.Digest); !ok {
			return fmt.Errorf("%s does not name blob %s", bundle.DescriptionFile, b.Digest)
		}
	}
	if layout == nil {
		switch keys, err := s.api.keys(ctx); {
		case err != nil:
			return fmt.Errorf("import.verify: %w", err)
		case len(keys) > 0:
			return errUnsigned
		}
	}
	return nil
}
