package registry

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/storage"
)

// MaxManifestSize is ECR's limit for the size of a manifest, in bytes.
const MaxManifestSize = 4 << 20

// PublicHost is the host of ECR Public.
const PublicHost = "public.ecr.aws"

// Options describes a [Registry].
type Options struct {
	Account, Region string
	Public          bool // it is ECR Public
	Now             func() time.Time
	Bucket          *storage.Bucket
}

// Registry is the registry of one account in one region, or ECR Public. Its methods
// may be called by several goroutines at once.
type Registry struct {
	account, region string
	public          bool
	now             func() time.Time
	bucket          *storage.Bucket

	mu           sync.RWMutex // guards the fields below
	repositories map[string]*Repository
	pullThroughs []PullThrough
	exclusions   []string // principals whose pulls are not recorded
	revoked      []string // what AWS Signer has revoked
	replication  []ReplicationRule
}

// New returns an empty registry.
func New(opts Options) *Registry {
	return &Registry{
		account: opts.Account, region: opts.Region, public: opts.Public, now: opts.Now, bucket: opts.Bucket,
		repositories: make(map[string]*Repository),
	}
}

// Account returns the account that owns the registry.
func (g *Registry) Account() string { return g.account }

// Region returns the region that the registry is in.
func (g *Registry) Region() string { return g.region }

// Public reports whether the registry is ECR Public.
func (g *Registry) Public() bool { return g.public }

// Host returns the name that AWS would give the registry's host.
func (g *Registry) Host() string {
	if g.public {
		return PublicHost
	}
	return HostOf(g.account, g.region)
}

// HostOf returns the host of an account's private registry in a region.
func HostOf(account, region string) string {
	domain := "amazonaws.com"
	if iam.Partition(region) == "aws-cn" {
		domain = "amazonaws.com.cn"
	}
	return account + ".dkr.ecr." + region + "." + domain
}

// ARN returns the ARN of a repository; "*" stands for all.
func (g *Registry) ARN(repository string) string { return ARNOf(g.region, g.account, repository) }

// ARNOf returns the ARN of a repository of an account in a region.
func ARNOf(region, account, repository string) string {
	return "arn:" + iam.Partition(region) + ":ecr:" + region + ":" + account + ":repository/" + repository
}

// NotFound returns ECR's text for a repository that does not exist. The registries
// of ECR Public are the aliases that names begin with.
func (g *Registry) NotFound(name string) string {
	if alias, rest, ok := strings.Cut(name, "/"); ok && g.public {
		return NotFound(rest, alias)
	}
	return NotFound(name, g.account)
}

// NotFound returns ECR's text for a repository that does not exist in the registry
// of an account.
func NotFound(repository, account string) string {
	return fmt.Sprintf("The repository with name '%s' does not exist in the registry with id '%s'", repository, account)
}

// repositoryName is ECR's grammar: API reference, CreateRepository.
var repositoryName = regexp.MustCompile(
	`^(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// tagName is the specification's grammar of tags; ECR accepts longer ones.
var tagName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,299}$`)

// IsTag reports whether a reference has the form of a tag.
func IsTag(reference string) bool { return tagName.MatchString(reference) }

// Repository returns the repository of a name, or nil.
func (g *Registry) Repository(name string) *Repository {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.repositories[name]
}

// Names returns the names of all repositories, sorted.
func (g *Registry) Names() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Sorted(maps.Keys(g.repositories))
}

// Create returns the repository of a name, and creates it if it does not exist. It
// returns an error if the name is not one that ECR accepts.
func (g *Registry) Create(name string) (*Repository, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return g.create(name), nil
}

func checkName(repository string) error {
	if !repositoryName.MatchString(repository) {
		return fmt.Errorf("%q is not a repository name", repository)
	}
	return nil
}

// create is Create without a check of the name.
func (g *Registry) create(name string) *Repository {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repositories[name]
	if r == nil {
		r = newRepository(g.now)
		g.repositories[name] = r
	}
	return r
}

// Reach returns a repository for a caller to carry out an action in. It returns nil
// if the repository does not exist, or if the caller may not carry out the action;
// denied is then the reason, and is empty if ECR tells the caller that the repository
// does not exist.
func (g *Registry) Reach(caller iam.Principal, action, name string) (r *Repository, denied string) {
	r = g.Repository(name)
	if g.public {
		return r, ""
	}
	var policy iam.Policy
	if r != nil {
		policy = r.accessPolicy()
	}
	denied = caller.Denied(action, g.ARN(name), g.account, policy)
	switch {
	case denied == "":
		return r, ""
	case r == nil && caller.Account != g.account:
		// No policy could allow it, and ECR says that there is no repository.
		return nil, ""
	default:
		return nil, denied
	}
}

// AddBlob adds a blob to a repository, which it creates if it does not exist. It
// reads the content once, for its digest.
func (g *Registry) AddBlob(repository string, c storage.Content) (ocispec.Descriptor, error) {
	if err := checkName(repository); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adding a blob: %w", err)
	}
	dgst, err := digest.FromReader(io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("hashing a blob for %s: %w", repository, err)
	}
	g.create(repository).addBlob(g.bucket.Put(dgst, c))
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: c.Size()}, nil
}

// AddManifest adds a manifest to a repository, which it creates if it does not
// exist, and moves tag to it unless tag is empty. It does not check the content.
func (g *Registry) AddManifest(repository, tag, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	if err := checkName(repository); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest: %w", err)
	}
	if tag != "" && !IsTag(tag) {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest to %s: %q is not a tag", repository, tag)
	}
	if len(raw) > MaxManifestSize {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest to %s: %d bytes exceed the %d that ECR accepts",
			repository, len(raw), MaxManifestSize)
	}
	m := NewManifest(mediaType, bytes.Clone(raw))
	if err := g.create(repository).addManifest(tag, m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest to %s: %w", repository, err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: m.Digest, Size: int64(len(raw))}, nil
}

// Replicate copies everything in a repository to the repository of the same name in
// another registry. The error is [fs.ErrNotExist] if there is no such repository.
func (g *Registry) Replicate(repository string, to *Registry) error {
	r := g.Repository(repository)
	if r == nil {
		return fs.ErrNotExist
	}
	to.add(repository, r.all())
	return nil
}

// add adds the contents of a repository of another registry.
func (g *Registry) add(repository string, c contents) *Repository {
	own := c
	own.blobs = nil
	for _, o := range c.blobs {
		own.blobs = append(own.blobs, g.bucket.Put(o.Digest, o.Content))
	}
	r := g.create(repository)
	r.add(own)
	return r
}

// AddPullThrough adds a pull-through cache rule.
func (g *Registry) AddPullThrough(rule PullThrough) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pullThroughs = append(g.pullThroughs, rule)
}

// pullThrough returns the rule for a repository.
func (g *Registry) pullThrough(repository string) (rule PullThrough, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	i := slices.IndexFunc(g.pullThroughs, func(p PullThrough) bool { return strings.HasPrefix(repository, p.Prefix+"/") })
	if i < 0 {
		return PullThrough{}, false
	}
	return g.pullThroughs[i], true
}

// recheckTags is how long ECR serves the tag of a pull-through repository without
// asking the source again.
const recheckTags = 24 * time.Hour

// Import returns the import that the pull of a tag by a caller causes, or nil if no
// rule applies, if the tag was imported less than a day ago, if the caller may not
// import, or if the source does not have the tag.
func (g *Registry) Import(caller iam.Principal, repository, tag string) *Import {
	rule, ok := g.pullThrough(repository)
	if !ok || !IsTag(tag) {
		return nil
	}
	now, r := g.now(), g.Repository(repository)
	if r != nil && now.Sub(r.lastImported(tag)) < recheckTags {
		return nil
	}
	may := func(action string) bool { return caller.Denied(action, g.ARN(repository), g.account, nil) == "" }
	if !may("ecr:BatchImportUpstreamImage") || r == nil && !may("ecr:CreateRepository") {
		return nil
	}
	source := rule.From.Repository(strings.TrimPrefix(repository, rule.Prefix+"/"))
	if source == nil {
		return nil
	}
	image, ok := source.image(tag)
	if !ok {
		return nil
	}
	return &Import{Delay: rule.Delay, Miss: rule.Miss, finish: func() {
		g.add(repository, image).setImported(tag, now)
	}}
}
