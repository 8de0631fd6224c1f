package ecrtest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Replicate copies what a repository holds now into the registry to, as ECR's
// replication rules do in their own time: under the same name, with its tags, and
// without its policies. What the other registry has besides stays.
func (s *Server) Replicate(repo string, to *Server) error {
	s.mu.RLock()
	r := s.repos[repo]
	var all load
	tags := make(map[string]digest.Digest)
	if r != nil {
		for _, dgst := range slices.Sorted(maps.Keys(r.manifests)) {
			all.manifests = append(all.manifests, r.manifests[dgst])
		}
		all.blobs = slices.Collect(maps.Values(r.blobs))
		maps.Copy(tags, r.tags)
	}
	s.mu.RUnlock()
	if r == nil {
		return fmt.Errorf("replicating %s: %w", repo, fs.ErrNotExist)
	}
	to.unload(repo, all, tags)
	return nil
}

// PullThrough is one of ECR's own pull-through cache rules.
type PullThrough struct {
	// Prefix is how names begin here that stand for repositories there:
	// docker-hub for docker-hub/library/busybox.
	Prefix string
	// From is where the images come from. It is not asked over the network, and
	// asks for no token.
	From *Server
	// Delay is how long the first pull of a tag takes, which imports all of it.
	Delay time.Duration
	// Miss has that pull answered that the image is not found, though it is imported.
	Miss bool
}

// recheckTags is how long ECR does not ask again what a tag of a pull-through
// repository stands for.
const recheckTags = 24 * time.Hour

// AddPullThrough adds a pull-through cache rule. A pull by tag imports, if the
// caller may carry out ecr:BatchImportUpstreamImage and, for the first of a
// repository, ecr:CreateRepository; without them, and by a digest that is not
// here, there is nothing.
func (s *Server) AddPullThrough(rule PullThrough) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pullThroughs = append(s.pullThroughs, rule)
}

// imported imports the image of a tag if a rule says so, and tells whether it
// has. repo is nil if there is no such repository yet.
func (s *Server) imported(x *exchange, repo *repository, name, tag string) bool {
	if !tagName.MatchString(tag) {
		return false
	}
	now := s.opts.Now()
	s.mu.RLock()
	i := slices.IndexFunc(s.pullThroughs, func(p PullThrough) bool { return strings.HasPrefix(name, p.Prefix+"/") })
	var rule PullThrough
	if i >= 0 {
		rule = s.pullThroughs[i]
	}
	fresh := repo != nil && now.Sub(repo.checked[tag]) < recheckTags
	s.mu.RUnlock()
	if i < 0 || fresh || !s.mayImport(x.caller, repo, name) {
		return false
	}
	all, root := rule.From.load(strings.TrimPrefix(name, rule.Prefix+"/"), tag)
	if root == "" {
		return false
	}
	x.pause(rule.Delay)
	s.unload(name, all, map[string]digest.Digest{tag: root})
	s.mu.Lock()
	s.repos[name].checked[tag] = now
	s.mu.Unlock()
	return !rule.Miss
}

func (s *Server) mayImport(who caller, repo *repository, name string) bool {
	may := func(action string) bool {
		return judge(who, action, arnOf(s.opts.Region, s.opts.Account, name), s.opts.Account, nil) == ""
	}
	return may("ecr:BatchImportUpstreamImage") && (repo != nil || may("ecr:CreateRepository"))
}

// load is what is copied from one repository to another.
type load struct {
	manifests []manifest
	blobs     []*blob
}

// load returns an image with all that belongs to it, its referrers too, and
// its digest, which is empty if there is none.
func (s *Server) load(repo, tag string) (all load, root digest.Digest) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.repos[repo]
	if r == nil || r.tags[tag] == "" {
		return load{}, ""
	}
	seen := make(map[digest.Digest]bool)
	queue := []digest.Digest{r.tags[tag]}
	for len(queue) > 0 {
		dgst := queue[0]
		queue = queue[1:]
		if seen[dgst] {
			continue
		}
		seen[dgst] = true
		if b := r.blobs[dgst]; b != nil {
			all.blobs = append(all.blobs, b)
		}
		if m, ok := r.manifests[dgst]; ok {
			all.manifests = append(all.manifests, m)
			queue = append(queue, m.children()...)
			for _, d := range r.referrers[dgst] {
				queue = append(queue, d.Digest)
			}
		}
	}
	return all, r.tags[tag]
}

// children returns what a manifest or an index names.
func (m manifest) children() []digest.Digest {
	var doc struct {
		Config    ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if json.Unmarshal(m.raw, &doc) != nil {
		return nil
	}
	var children []digest.Digest
	for _, d := range slices.Concat([]ocispec.Descriptor{doc.Config}, doc.Layers, doc.Manifests) {
		children = append(children, d.Digest)
	}
	return children
}

// unload puts what was loaded into a repository, and moves tags.
func (s *Server) unload(repo string, all load, tags map[string]digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repository(repo)
	for _, b := range all.blobs {
		r.blobs[b.digest] = s.blob(b.digest, b.content)
	}
	for _, m := range all.manifests {
		s.putManifest(r, m)
	}
	maps.Copy(r.tags, tags)
}
