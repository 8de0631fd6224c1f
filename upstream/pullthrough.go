package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/reply"
)

// ECR fills the repositories of its own pull-through cache rules when an image
// is first pulled, by tag: that takes a while, may be answered by "not found"
// first, and does not happen for a digest. What is not there looks the same as
// what the caller may not import. Which repositories these are is configured: to
// ask ECR for its rules would take a permission that pulling does not, and says
// nothing of other accounts' registries.

const (
	// importTimeout is how long ECR may take for a first pull. Clients wait for
	// as long as ever; what comes later is for those who ask again.
	importTimeout = 2 * time.Minute
	// importPause is how long after a "not found" it is asked again.
	importPause = 2 * time.Second
	// everyRepository is ECR's prefix for a rule that holds for what no other does.
	everyRepository = "ROOT"
)

// importer knows the repositories that ECR fills. It is safe for concurrent use.
type importer struct {
	prefixes []string
	pause    time.Duration              // importPause, but in tests
	tags     *lru.Cache[string, string] // by repository@digest
}

func newImporter(prefixes []string) *importer {
	tags, _ := lru.New[string, string](1024) // fails only for a size that is not positive
	return &importer{prefixes, importPause, tags}
}

// fills reports whether ECR fills a repository.
func (i *importer) fills(repository string) bool {
	for _, prefix := range i.prefixes {
		if prefix == everyRepository || strings.HasPrefix(repository, prefix+"/") {
			return true
		}
	}
	return false
}

// importedManifest is Manifest for a repository that ECR fills.
func (r *Registry) importedManifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, max(importTimeout, r.timeout), reply.ErrTimeout)
	defer cancel()
	desc, raw, err := r.anyManifest(ctx, repository, reference, head)
	if errors.Is(err, fs.ErrNotExist) {
		desc, raw, err = r.importManifest(ctx, repository, reference, head)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; what ECR pulls through is there once it was pulled by tag, by somebody who is allowed to "+
			"ecr:BatchImportUpstreamImage and, where the repository is new, ecr:CreateRepository", err)
	}
	if err == nil && reference != desc.Digest.String() {
		r.imports.tags.Add(repository+"@"+desc.Digest.String(), reference)
	}
	return desc, raw, err
}

// importManifest asks again for what was not there: first by the tag by which a
// digest is known.
func (r *Registry) importManifest(ctx context.Context, repository, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	if tag, ok := r.imports.tags.Get(repository + "@" + reference); ok {
		desc, raw, err := r.anyManifest(ctx, repository, tag, false)
		if err == nil && desc.Digest == digest.Digest(reference) {
			return desc, raw, nil
		}
	}
	timer := time.NewTimer(r.imports.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ocispec.Descriptor{}, nil, context.Cause(ctx)
	}
	return r.anyManifest(ctx, repository, reference, head)
}
