package registry

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/lifecycle"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/storage"
)

// Repository is one repository. Its methods may be called by several goroutines at
// once.
type Repository struct {
	now     func() time.Time
	created time.Time

	mu         sync.RWMutex // guards the fields below
	blobs      map[digest.Digest]*storage.Object
	manifests  map[digest.Digest]Manifest
	tags       map[string]digest.Digest
	referrers  map[digest.Digest][]ocispec.Descriptor // by subject
	states     map[digest.Digest]ImageState           // of manifests
	scans      map[digest.Digest]Scan                 // of images that were scanned
	signing    map[digest.Digest][]SigningStatus      // of images that ECR signs
	imported   map[string]time.Time                   // when a pull-through rule last imported a tag
	mutability TagMutability
	lifecycle  string     // text of the lifecycle policy, or empty
	evaluated  time.Time  // when that was last carried out
	policy     iam.Policy // replaced, never changed
}

func newRepository(now func() time.Time) *Repository {
	return &Repository{
		now:       now,
		created:   now(),
		blobs:     make(map[digest.Digest]*storage.Object),
		manifests: make(map[digest.Digest]Manifest),
		tags:      make(map[string]digest.Digest),
		referrers: make(map[digest.Digest][]ocispec.Descriptor),
		states:    make(map[digest.Digest]ImageState),
		scans:     make(map[digest.Digest]Scan),
		signing:   make(map[digest.Digest][]SigningStatus),
		imported:  make(map[string]time.Time),
	}
}

// Created returns when the repository was created.
func (r *Repository) Created() time.Time { return r.created }

// SetPolicy sets the policy that says who else may use the repository.
func (r *Repository) SetPolicy(p iam.Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy = slices.Clone(p)
}

func (r *Repository) accessPolicy() iam.Policy {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.policy
}

// SetTagMutability sets which tags can move. Tags that exist are not changed.
func (r *Repository) SetTagMutability(m TagMutability) {
	m.Except = slices.Clone(m.Except)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mutability = m
}

// TagMutability returns which tags can move.
func (r *Repository) TagMutability() TagMutability {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mutability
}

// SetLifecyclePolicy sets the text of the lifecycle policy; empty removes it. The
// text is not checked before RunLifecycle.
func (r *Repository) SetLifecyclePolicy(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lifecycle, r.evaluated = text, time.Time{}
}

// LifecyclePolicy returns the text of the lifecycle policy, or "", and when it was
// last carried out.
func (r *Repository) LifecyclePolicy() (text string, evaluated time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.lifecycle, r.evaluated
}

// RunLifecycle carries out the lifecycle policy now. Without one it does nothing.
func (r *Repository) RunLifecycle() (lifecycle.Result, error) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lifecycle == "" {
		return lifecycle.Result{}, nil
	}
	result, err := lifecycle.Evaluate(r.lifecycle, r.lifecycleImages(), now)
	if err != nil {
		return lifecycle.Result{}, err
	}
	r.evaluated = now
	for _, dgst := range result.Archived {
		st := r.states[dgst]
		st.Status, st.Archived = ArchivedStatus, now
		r.states[dgst] = st
	}
	for _, dgst := range result.Expired {
		r.remove(dgst)
	}
	return result, nil
}

// lifecycleImages returns the images in the form of the evaluation. The caller holds
// r.mu.
func (r *Repository) lifecycleImages() []lifecycle.Image {
	var images []lifecycle.Image
	for _, img := range r.images() {
		entry := lifecycle.Image{
			Digest: img.Digest, Tags: img.Tags, Children: img.Children(),
			Pushed: img.Pushed, Pulled: img.Pulled, Archived: img.Archived, InArchive: img.archived(),
		}
		if _, ok := r.manifests[img.Subject()]; ok {
			entry.Subject = img.Subject()
		}
		images = append(images, entry)
	}
	return images
}

// Images returns all images, sorted by digest.
func (r *Repository) Images() []Image {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.images()
}

// images is Images for a caller that holds r.mu.
func (r *Repository) images() []Image {
	tags := make(map[digest.Digest][]string)
	for _, tag := range slices.Sorted(maps.Keys(r.tags)) {
		tags[r.tags[tag]] = append(tags[r.tags[tag]], tag)
	}
	var images []Image
	for _, dgst := range slices.Sorted(maps.Keys(r.manifests)) {
		images = append(images, Image{Manifest: r.manifests[dgst], ImageState: r.states[dgst], Tags: tags[dgst]})
	}
	return images
}

// SetImageState replaces the record of an image. The error is
// [fs.ErrNotExist] if there is no such image.
func (r *Repository) SetImageState(dgst digest.Digest, st ImageState) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.manifests[dgst]; !ok {
		return fs.ErrNotExist
	}
	r.states[dgst] = st
	return nil
}

// RecordPull notes that an image was pulled, if the last pull that ECR recorded is a
// day old (API reference, ImageDetail).
func (r *Repository) RecordPull(dgst digest.Digest) {
	const granularity = 24 * time.Hour
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	st, ok := r.states[dgst]
	if ok && now.Sub(st.Pulled) >= granularity {
		st.Pulled = now
		r.states[dgst] = st
	}
}

// addBlob adds a blob.
func (r *Repository) addBlob(o *storage.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[o.Digest] = o
}

// Blob returns the blob of a digest, or nil.
func (r *Repository) Blob(dgst digest.Digest) *storage.Object {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.blobs[dgst]
}

// addManifest adds a manifest and moves tag to it unless tag is empty. It returns an
// error if the tag exists and cannot move.
func (r *Repository) addManifest(tag string, m Manifest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.tags[tag]; old != "" && old != m.Digest && !r.mutability.movable(tag) {
		return fmt.Errorf("the tag %s exists and is immutable", tag)
	}
	r.put(m)
	if tag != "" {
		r.tags[tag] = m.Digest
	}
	return nil
}

// put adds a manifest unless it is there. The caller holds r.mu.
func (r *Repository) put(m Manifest) {
	if _, known := r.manifests[m.Digest]; known {
		return
	}
	r.manifests[m.Digest] = m
	r.states[m.Digest] = ImageState{Pushed: r.now()}
	if subject, entry, ok := m.referrer(); ok {
		r.referrers[subject] = append(r.referrers[subject], entry)
	}
}

// Remove removes an image and its tags. The blobs and manifests that it names stay.
// The error is [fs.ErrNotExist] if there is no such image.
func (r *Repository) Remove(dgst digest.Digest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.manifests[dgst]; !ok {
		return fs.ErrNotExist
	}
	r.remove(dgst)
	return nil
}

// remove is Remove of an image that exists. The caller holds r.mu.
func (r *Repository) remove(dgst digest.Digest) {
	if subject := r.manifests[dgst].Subject(); subject != "" {
		r.referrers[subject] = slices.DeleteFunc(r.referrers[subject], func(d ocispec.Descriptor) bool { return d.Digest == dgst })
	}
	delete(r.manifests, dgst)
	delete(r.states, dgst)
	delete(r.scans, dgst)
	delete(r.signing, dgst)
	maps.DeleteFunc(r.tags, func(_ string, d digest.Digest) bool { return d == dgst })
}

// Resolve returns the digest of a tag, or "".
func (r *Repository) Resolve(tag string) digest.Digest {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tags[tag]
}

// Manifest returns the manifest of a digest. ok is false if there is none, or if it
// is archived.
func (r *Repository) Manifest(dgst digest.Digest) (m Manifest, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok = r.manifests[dgst]
	return m, ok && !r.states[dgst].archived()
}

// Tags returns all tags, sorted.
func (r *Repository) Tags() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.tags))
}

// Referrers returns the entries of the manifests that have a digest as their
// subject.
func (r *Repository) Referrers(subject digest.Digest) []ocispec.Descriptor {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.referrers[subject])
}

// contents is a part of a repository that is copied to another one.
type contents struct {
	manifests []Manifest
	blobs     []*storage.Object
	tags      map[string]digest.Digest
}

// all returns everything that the repository holds.
func (r *Repository) all() contents {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c := contents{blobs: slices.Collect(maps.Values(r.blobs)), tags: maps.Clone(r.tags)}
	for _, dgst := range slices.Sorted(maps.Keys(r.manifests)) {
		c.manifests = append(c.manifests, r.manifests[dgst])
	}
	return c
}

// image returns the image of a tag with everything that belongs to it, referrers
// included. ok is false if there is no such tag.
func (r *Repository) image(tag string) (c contents, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	root := r.tags[tag]
	if root == "" {
		return contents{}, false
	}
	c.tags = map[string]digest.Digest{tag: root}
	seen := make(map[digest.Digest]bool)
	for queue := []digest.Digest{root}; len(queue) > 0; {
		dgst := queue[0]
		queue = queue[1:]
		if seen[dgst] {
			continue
		}
		seen[dgst] = true
		if b := r.blobs[dgst]; b != nil {
			c.blobs = append(c.blobs, b)
		}
		if m, ok := r.manifests[dgst]; ok {
			c.manifests = append(c.manifests, m)
			queue = append(queue, m.Children()...)
			for _, d := range r.referrers[dgst] {
				queue = append(queue, d.Digest)
			}
		}
	}
	return c, true
}

// add adds contents, and moves their tags.
func (r *Repository) add(c contents) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range c.blobs {
		r.blobs[o.Digest] = o
	}
	for _, m := range c.manifests {
		r.put(m)
	}
	maps.Copy(r.tags, c.tags)
}

// setImported notes that a pull-through rule imported a tag.
func (r *Repository) setImported(tag string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.imported[tag] = at
}

// lastImported returns when a pull-through rule last imported a tag; zero if never.
func (r *Repository) lastImported(tag string) time.Time {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.imported[tag]
}
