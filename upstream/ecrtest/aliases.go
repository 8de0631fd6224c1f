package ecrtest

import (
	"github.com/larder-registry/larder/upstream/ecrtest/internal/awsapi"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/lifecycle"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/storage"
)

// The faults of [Server.Inject].
type (
	// Fault is something that goes wrong.
	Fault = frontend.Fault
	// Op is a kind of request, or a set of kinds.
	Op = frontend.Op
)

// The kinds of requests. All but Storage go to the host of the registry.
const (
	API         = frontend.API         // the ECR API
	Ping        = frontend.Ping        // /v2/
	Manifest    = frontend.Manifest    // /v2/<name>/manifests/<reference>
	Blob        = frontend.Blob        // /v2/<name>/blobs/<digest>, which redirects
	Tags        = frontend.Tags        // /v2/<name>/tags/list
	Referrers   = frontend.Referrers   // /v2/<name>/referrers/<digest>
	Storage     = frontend.Storage     // a signed URL
	Catalog     = frontend.Catalog     // /v2/_catalog
	STS         = frontend.STS         // the API of STS
	Credentials = frontend.Credentials // the credentials of a container or an instance
	Token       = frontend.Token       // /token/ of ECR Public

	Any = frontend.Any
)

// Identities and permissions: see [AWS] and [Server.SetRepositoryPolicy].
type (
	// Policy is the content of an IAM policy document.
	Policy = iam.Policy
	// Statement is one statement of a policy.
	Statement = iam.Statement
	// Role is an IAM role.
	Role = iam.Role
	// Key signs calls: the credentials of a user, or of a session of a role.
	Key = iam.Key
	// Call is a call of ECR's API or of STS.
	Call = awsapi.Entry
)

// Allow returns a statement that allows actions on any resource.
func Allow(actions ...string) Statement { return iam.Allow(actions...) }

// Deny returns a statement that denies actions on any resource. A denial overrides
// every permission.
func Deny(actions ...string) Statement { return iam.Deny(actions...) }

// PullActions returns the actions that a pull from a private registry needs.
func PullActions() []string { return iam.PullActions() }

// ParsePolicy reads an IAM policy document. It returns an error for everything that
// the fake does not evaluate, such as conditions.
func ParsePolicy(document []byte) (Policy, error) { return iam.ParsePolicy(document) }

// The settings of a registry.
type (
	// ReplicationRule says to which registries repositories are replicated.
	ReplicationRule = registry.ReplicationRule
	// Destination is a registry that repositories are replicated to.
	Destination = registry.Destination
)

// The content of repositories.
type (
	// Content is the bytes of a blob. It does not change, and several goroutines may
	// read it at once.
	Content = storage.Content
	// BlobStats says how often one blob was requested, in all repositories together.
	BlobStats = storage.BlobStats
	// ImageState is ECR's record of an image, besides its manifest.
	ImageState = registry.ImageState
	// TagMutability says which tags of a repository can move.
	TagMutability = registry.TagMutability
	// Lifecycle is the result of a run of a lifecycle policy.
	Lifecycle = lifecycle.Result
)
