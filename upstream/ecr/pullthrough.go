package ecr

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
)

const (
	// ImportTimeout is how long ECR may take for the first pull of an image. Clients
	// wait for their usual time; a later answer is for the next request.
	ImportTimeout = 2 * time.Minute
	// importPause is the pause before the request after a "not found".
	importPause = 2 * time.Second
	// everyRepository is ECR's prefix for a rule that holds for repositories without
	// another one.
	everyRepository = "ROOT"
	// maxImportedTags bounds the tags that are remembered.
	maxImportedTags = 1024
)

// PullThrough knows the repositories that ECR fills by its own pull-through cache
// rules. It fills one when an image is first pulled by tag. That takes a while, may
// be answered by "not found" at first, and does not happen for a digest. An image
// that the caller may not import is also "not found".
//
// The prefixes of the rules are configured: to ask ECR for them takes a permission
// that pulls do not need, and does not work for other accounts. PullThrough is safe
// for concurrent use.
type PullThrough struct {
	prefixes []string
	tags     *lru.Cache[string, string] // by repository@digest
}

// NewPullThrough returns one for rules with these prefixes.
func NewPullThrough(prefixes []string) *PullThrough {
	tags, _ := lru.New[string, string](maxImportedTags) // fails only for a size that is not positive
	return &PullThrough{prefixes, tags}
}

// Fills reports whether ECR fills a repository.
func (p *PullThrough) Fills(repository string) bool {
	for _, prefix := range p.prefixes {
		if prefix == everyRepository || strings.HasPrefix(repository, prefix+"/") {
			return true
		}
	}
	return false
}

// Ask gets a manifest of one repository by tag or digest. With head it gets the
// descriptor alone.
type Ask func(ctx context.Context, reference string, head bool) (ocispec.Descriptor, []byte, error)

// Manifest gets a manifest of a repository that ECR fills. After a "not found" it
// asks again.
func (p *PullThrough) Manifest(ctx context.Context, repository, reference string, head bool, ask Ask) (ocispec.Descriptor, []byte, error) {
	desc, raw, err := ask(ctx, reference, head)
	if errors.Is(err, fs.ErrNotExist) {
		desc, raw, err = p.askAgain(ctx, repository, reference, head, ask)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; ECR's pull-through cache has an image after its first pull by tag, by a caller with the permissions "+
			"ecr:BatchImportUpstreamImage and, for a new repository, ecr:CreateRepository", err)
	}
	if err == nil && reference != desc.Digest.String() {
		p.tags.Add(repository+"@"+desc.Digest.String(), reference)
	}
	return desc, raw, err
}

// askAgain asks for a digest by the tag that led to it, and otherwise the same
// after a pause.
func (p *PullThrough) askAgain(ctx context.Context, repository, reference string, head bool, ask Ask) (ocispec.Descriptor, []byte, error) {
	if tag, ok := p.tags.Get(repository + "@" + reference); ok {
		desc, raw, err := ask(ctx, tag, false)
		if err == nil && desc.Digest == digest.Digest(reference) {
			return desc, raw, nil
		}
	}
	timer := time.NewTimer(importPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ocispec.Descriptor{}, nil, context.Cause(ctx)
	}
	return ask(ctx, reference, head)
}
