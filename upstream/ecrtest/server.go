package ecrtest

import (
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/awsapi"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/distribution"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/ecrapi"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/secret"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/storage"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/sts"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/token"
)

// Server is one account's registry in one region. Its methods may be called by
// several goroutines at once, also while it serves.
type Server struct {
	opts     Options
	aws      *AWS
	front    *frontend.Frontend
	bucket   *storage.Bucket
	registry *registry.Registry
	epoch    *token.Epoch // of the tokens of the region
	tokens   *token.Issuer
	pulls    *distribution.PullLimits

	// The faces.
	distribution *distribution.Handler
	api          *ecrapi.API
	sts          *sts.API
	credentials  sts.Credentials
}

// New returns an empty registry. Nothing listens yet: see [Start], or serve
// [Server.Registry] and [Server.Storage] and call SetStorageURL.
func New(opts Options) *Server {
	opts = opts.withDefaults()
	if opts.AWS == nil {
		opts.AWS = newAWS(opts)
	}
	aws, key := opts.AWS, secret.Key(opts.SecretKey)
	s := &Server{
		opts:  opts,
		aws:   aws,
		front: frontend.New(opts.Now),
		epoch: aws.epoch(opts.Region, opts.Public),
		pulls: distribution.NewPullLimits(opts.Now),
	}
	s.bucket = storage.New(s.front, storage.Options{
		Account: opts.Account, Region: opts.Region, Key: key, URLTTL: opts.URLTTL, Now: opts.Now,
	})
	s.registry = registry.New(registry.Options{
		Account: opts.Account, Region: opts.Region, Public: opts.Public, Now: opts.Now, Bucket: s.bucket,
	})
	s.tokens = token.NewIssuer(token.Options{
		Region: opts.Region, Public: opts.Public, Key: key,
		PasswordTTL: opts.TokenTTL, BearerTTL: opts.BearerTTL, Now: opts.Now, Epoch: s.epoch,
	})
	s.distribution = distribution.New(distribution.Options{
		Front: s.front, Registry: s.registry, Bucket: s.bucket, Tokens: s.tokens, Accounts: aws.accounts,
		Pulls: s.pulls, NoReferrers: opts.NoReferrers,
	})
	verifier := awsapi.Verifier{Accounts: aws.accounts, Now: opts.Now, MaxSkew: opts.MaxSkew}
	s.api = ecrapi.New(ecrapi.Options{
		Front: s.front, Registry: s.registry, Tokens: s.tokens, Verifier: verifier, Log: &aws.log, Directory: directory{aws},
	})
	s.sts = sts.New(sts.Options{
		Front: s.front, Accounts: aws.accounts, Verifier: verifier, Log: &aws.log, Region: opts.Region,
	})
	s.credentials = sts.Credentials{Front: s.front, Accounts: aws.accounts, Now: aws.now}
	s.SetBandwidth(opts.BytesPerSecond)
	s.SetLatency(opts.Latency)
	aws.add(s)
	return s
}

// AWS returns the state that the registry shares with those that are made with it as
// [Options.AWS].
func (s *Server) AWS() *AWS { return s.aws }

// Host returns the name that AWS would give this registry, such as
// 123456789012.dkr.ecr.us-east-1.amazonaws.com.
func (s *Server) Host() string { return s.registry.Host() }

// Registry returns the handler of the registry (/v2/), of the ECR API and STS (POST
// /), of AWS Signer's revocations (/revocations), of ECR Public's tokens (/token/), and of the credentials of containers and
// instances. A request whose Host names another registry of the same [AWS] is
// answered by that one, and a call that is signed for another region by one of that
// region.
func (s *Server) Registry() http.Handler { return http.HandlerFunc(s.serveRegistry) }

func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) {
	if named := s.aws.byHost(r.Host); named != nil {
		s = named
	}
	switch {
	case r.URL.Path == "/":
		s.serveCall(w, r)
	case r.URL.Path == "/revocations":
		s.api.ServeRevocations(w, r, awsapi.ReadCall(w, r))
	case s.opts.Public && distribution.IsTokenPath(r.URL.Path):
		s.distribution.ServeToken(w, r)
	case sts.IsCredentialsPath(r.URL.Path):
		s.credentials.ServeHTTP(w, r)
	default:
		s.distribution.ServeHTTP(w, r)
	}
}

// serveCall answers a call of STS or of the ECR API. If the call is not for the API
// of this registry, one that it is for answers.
func (s *Server) serveCall(w http.ResponseWriter, r *http.Request) {
	c := awsapi.ReadCall(w, r)
	if c.STS {
		s.sts.Serve(w, r, c)
		return
	}
	if c.Public != s.opts.Public || !c.Public && c.Signature.Region != s.opts.Region {
		if to := s.aws.byCall(c); to != nil {
			s = to
		}
	}
	s.api.Serve(w, r, c)
}

// Storage returns the handler of the signed URLs. It is meant for HTTP/1.1.
func (s *Server) Storage() http.Handler { return s.bucket }

// SetStorageURL says where [Server.Storage] is served: a scheme and a host. Its name,
// not only its port, differs from that of the registry, because clients drop their
// credentials only on the way to another name.
func (s *Server) SetStorageURL(u string) { s.bucket.SetURL(u) }

// SetBandwidth changes [Options.BytesPerSecond], also for answers that are being
// sent.
func (s *Server) SetBandwidth(bytesPerSecond int64) { s.bucket.SetBandwidth(bytesPerSecond) }

// SetLatency changes [Options.Latency] for later requests.
func (s *Server) SetLatency(d time.Duration) { s.front.SetLatency(d) }

// Inject makes a fault act from now on, and returns a function that removes it: the
// requests that hang and the bodies that stall then go on as if nothing had happened.
// remove may be called more than once.
//
// One fault acts on a request: of those that match and are not used up, the one that
// was injected first.
//
// A client may silently repeat a request that Refuse or CutAfter has broken: Go's
// client does so on a connection that was used before.
func (s *Server) Inject(f Fault) (remove func()) { return s.front.Inject(f) }

// SetRateLimit answers requests of the kinds on, counted together, as
// [Fault.Throttle] does if there are more than perSecond, by the clock of the server.
// burst requests, at least one, may come at once. It replaces the limit of the same
// kinds; 0 per second removes it.
func (s *Server) SetRateLimit(on Op, perSecond float64, burst int) {
	s.front.SetRateLimit(on, perSecond, burst)
}

// SetPullLimit changes how many pulls ECR Public allows per second, anonymously and
// with credentials: 1 and 10 by default, 0 for any number. A pull is a GET of a
// manifest; burst pulls may come at once.
func (s *Server) SetPullLimit(anonymous, signedIn float64, burst int) {
	s.pulls.Set(anonymous, signedIn, burst)
}

// ExpireTokens makes every token that was issued in the region so far an expired
// one.
func (s *Server) ExpireTokens() { s.epoch.Expire() }

// ExpireURLs makes every URL that was signed so far an expired one. Bodies that are
// being sent are not affected.
func (s *Server) ExpireURLs() { s.bucket.ExpireURLs() }

// SetRepositoryPolicy sets the policy that says who else may use a repository, which
// it creates if it does not exist.
func (s *Server) SetRepositoryPolicy(repo string, p Policy) error {
	r, err := s.registry.Create(repo)
	if err != nil {
		return fmt.Errorf("setting a repository policy: %w", err)
	}
	r.SetPolicy(p)
	return nil
}

// SetTagMutability says which tags of a repository can move; it creates the
// repository if it does not exist. AddManifest then refuses to move the others.
func (s *Server) SetTagMutability(repo string, m TagMutability) error {
	r, err := s.registry.Create(repo)
	if err != nil {
		return fmt.Errorf("setting the mutability of tags: %w", err)
	}
	r.SetTagMutability(m)
	return nil
}

// SetLifecyclePolicy sets the lifecycle policy of a repository, which it creates if
// it does not exist, to a text that is not checked. An empty text removes the policy.
// RunLifecycle carries it out.
func (s *Server) SetLifecyclePolicy(repo, text string) error {
	r, err := s.registry.Create(repo)
	if err != nil {
		return fmt.Errorf("setting a lifecycle policy: %w", err)
	}
	r.SetLifecyclePolicy(text)
	return nil
}

// SetPullTimeExclusions replaces the list of pull-time update exclusions: users and
// roles, by their ARNs, whose pulls are not recorded.
func (s *Server) SetPullTimeExclusions(principals ...string) {
	s.registry.SetPullTimeExclusions(principals)
}

// SetReplication replaces the replication rules of the registry. They replicate nothing by
// themselves: see [Server.Replicate].
func (s *Server) SetReplication(rules ...ReplicationRule) { s.registry.SetReplication(rules) }

// RunLifecycle carries out the lifecycle policy of a repository at once; ECR does so
// within a day after an image meets it. Blobs stay. Without a policy it does nothing.
// The error is [fs.ErrNotExist] if there is no such repository.
func (s *Server) RunLifecycle(repo string) (Lifecycle, error) {
	r := s.registry.Repository(repo)
	if r == nil {
		return Lifecycle{}, fmt.Errorf("running the lifecycle policy of %s: %w", repo, fs.ErrNotExist)
	}
	done, err := r.RunLifecycle()
	if err != nil {
		return Lifecycle{}, fmt.Errorf("running the lifecycle policy of %s: %w", repo, err)
	}
	return done, nil
}

// AddBlob adds a blob to a repository, which it creates if it does not exist. It
// reads the whole content once, for its digest.
func (s *Server) AddBlob(repo string, c Content) (ocispec.Descriptor, error) {
	return s.registry.AddBlob(repo, c)
}

// AddManifest adds a manifest to a repository, which it creates if it does not exist,
// and moves tag to it unless tag is empty. The manifest is served as it is, under
// mediaType. Neither its content nor the presence of the blobs it names is checked.
// A manifest with a subject becomes a referrer of that.
func (s *Server) AddManifest(repo, tag, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	return s.registry.AddManifest(repo, tag, mediaType, raw)
}

// AddImage adds an image with its blobs to a repository, and moves tag to it unless
// tag is empty.
func (s *Server) AddImage(repo, tag string, img Image) (*Added, error) {
	return addImage(s.registry, repo, tag, img, s.opts.NoReferrers)
}

// RemoveManifest removes a manifest and its tags from a repository, as a lifecycle
// policy does in time. The blobs and manifests that it names stay. The error is
// [fs.ErrNotExist] if there is no such manifest.
func (s *Server) RemoveManifest(repo string, dgst digest.Digest) error {
	err := s.inRepository(repo, func(r *registry.Repository) error { return r.Remove(dgst) })
	if err != nil {
		return fmt.Errorf("removing %s@%s: %w", repo, dgst, err)
	}
	return nil
}

// SetImageState replaces the record of an image. The error is [fs.ErrNotExist]
// if there is no such image.
func (s *Server) SetImageState(repo string, dgst digest.Digest, st ImageState) error {
	err := s.inRepository(repo, func(r *registry.Repository) error { return r.SetImageState(dgst, st) })
	if err != nil {
		return fmt.Errorf("setting the state of %s@%s: %w", repo, dgst, err)
	}
	return nil
}

// inRepository calls do for a repository. The error is [fs.ErrNotExist] if there is
// no such repository.
func (s *Server) inRepository(repo string, do func(*registry.Repository) error) error {
	r := s.registry.Repository(repo)
	if r == nil {
		return fs.ErrNotExist
	}
	return do(r)
}

// Replicate copies everything in a repository into the registry to, as ECR's
// replication rules do at some time: under the same name, with its tags, and without
// its policies. The content that the other repository has already stays.
func (s *Server) Replicate(repo string, to *Server) error {
	if err := s.registry.Replicate(repo, to.registry); err != nil {
		return fmt.Errorf("replicating %s: %w", repo, err)
	}
	return nil
}

// PullThrough is one of ECR's own pull-through cache rules.
type PullThrough struct {
	// Prefix is the beginning of the names of repositories that the rule is for, such
	// as docker-hub for docker-hub/library/busybox.
	Prefix string
	// From is the source of the images. It is not asked over the network, and needs no
	// token.
	From *Server
	// Delay is how long the first pull of a tag takes, which imports the whole image.
	Delay time.Duration
	// Miss answers that pull as not found, although the image is imported.
	Miss bool
}

// AddPullThrough adds a pull-through cache rule. A pull by tag imports the image if
// the caller may carry out ecr:BatchImportUpstreamImage and, for the first pull from a
// repository, ecr:CreateRepository. Without these permissions, and by a digest that
// was not imported, there is no image.
func (s *Server) AddPullThrough(rule PullThrough) {
	s.registry.AddPullThrough(registry.PullThrough{
		Prefix: rule.Prefix, From: rule.From.registry, Delay: rule.Delay, Miss: rule.Miss,
	})
}

// Stats returns the counts of this moment. A byte that a client has received is
// counted.
func (s *Server) Stats() Stats {
	st := Stats{
		Tokens:   s.tokens.Passwords(),
		Exceeded: s.front.Exceeded() + s.pulls.Exceeded(),
		Blobs:    s.bucket.Stats(),
	}
	st.Requests, st.Heads = s.front.Requests()
	return st
}

// ResetStats sets all counts to zero. Answers that are being sent go on counting.
func (s *Server) ResetStats() {
	s.tokens.ResetCount()
	s.front.ResetCounts()
	s.pulls.ResetCount()
	s.bucket.ResetStats()
}
