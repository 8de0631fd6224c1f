// Package ecrtest is an Amazon ECR registry in this process: the Docker Registry
// API, the ECR API and the storage that blobs are redirected to, and as much of
// IAM and STS as decides who may pull. It can be ECR Public, and there can be
// several in one [AWS].
//
// It answers as the real one was seen to, down to the texts that clients must
// recognise: tokens that expire, manifest GETs without Docker-Content-Digest,
// blobs behind signed URLs on another host name. [Server.Inject] makes it fail
// on demand and [Server.Stats] tells what it was asked for and what it sent.
//
// Contents are random access and may be generated while they are read, so
// that an image of many gigabytes costs neither memory nor disk.
package ecrtest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifestSize is ECR's bound on a manifest, in bytes.
const maxManifestSize = 4 << 20

// Options describes a [Server]. The zero value is a working one.
type Options struct {
	Account string // of twelve digits; "123456789012" if empty
	Region  string // "us-east-1" if empty

	// Public makes it ECR Public, which belongs to no account and has one region.
	Public bool

	// AWS is what this registry is to share with others, from [Server.AWS] of the
	// first. If nil it is a new one, of which AccessKey, SecretKey and Now are a
	// part; with one that is given, AccessKey and SecretKey mean nothing.
	AWS *AWS
	// AccessKey is an AWS access key of the user "larder" of the account, who may do
	// everything; "AKIDLARDERTEST" if empty. What callers sign with it, as with any
	// other key, is not checked.
	AccessKey string
	// SecretKey is what tokens and URLs are signed with, "secret" if empty. They
	// stay good in another server, or process, with the same secret.
	SecretKey string

	TokenTTL  time.Duration // how long a token is good; 12 h if 0
	BearerTTL time.Duration // how long a bearer token of ECR Public is good; 1 h if 0
	URLTTL    time.Duration // how long a signed URL is good, in whole seconds; 1 h if 0

	// Now is the clock of tokens, URLs, pushes and the Date of answers; that of AWS
	// or else time.Now if nil.
	Now func() time.Time
	// MaxSkew is how far the date of a call's signature may be from the clock; not
	// checked if 0. AWS allows five minutes.
	MaxSkew time.Duration

	BytesPerSecond int64         // of each connection to storage; no limit if 0
	Latency        time.Duration // before each answer
}

// Server is one account's registry in one region. Its methods may be called by
// several goroutines at once, and while it serves.
type Server struct {
	opts   Options
	aws    *AWS
	region *region
	signer signer
	faults faults
	limits limits
	stats  requestCounts
	chunks sync.Pool // of *[]byte, maxChunk long

	bandwidth atomic.Int64 // bytes per second, 0 for no limit
	latency   atomic.Int64 // a time.Duration

	tokens   atomic.Int64 // issued since ResetStats
	tokenSeq atomic.Int64 // makes tokens differ from each other
	urlEpoch atomic.Int64 // URLs of an earlier one have expired

	mu           sync.RWMutex // guards what follows
	storageURL   string
	repos        map[string]*repository
	blobs        map[digest.Digest]*blob
	objects      map[string]*blob // by the path that storage has it under
	pullThroughs []PullThrough
}

// repository is what one repository holds. Server.mu guards it.
type repository struct {
	blobs     map[digest.Digest]*blob
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
	referrers map[digest.Digest][]ocispec.Descriptor // by subject
	states    map[digest.Digest]ImageState           // of manifests
	checked   map[string]time.Time                   // when a pull-through tag was imported

	created    time.Time
	mutability TagMutability
	lifecycle  string // the text of the policy, if not empty
	access     Policy // the repository's policy; replaced, never changed
}

// manifest is immutable.
type manifest struct {
	mediaType string
	raw       []byte
	digest    digest.Digest
}

// blob is one content, whichever repositories hold it.
type blob struct {
	content Content
	digest  digest.Digest
	path    string // in storage
	counts  blobCounts
}

// New returns an empty registry. Nothing listens yet: see [Start], or serve
// [Server.Registry] and [Server.Storage] and say where with SetStorageURL.
func New(opts Options) *Server {
	if opts.Public {
		opts.Region = publicRegion
	}
	opts.Region = cmp.Or(opts.Region, "us-east-1")
	opts.TokenTTL = cmp.Or(opts.TokenTTL, 12*time.Hour)
	opts.BearerTTL = cmp.Or(opts.BearerTTL, time.Hour)
	opts.URLTTL = cmp.Or(opts.URLTTL, time.Hour)
	if aws := opts.AWS; aws != nil {
		opts.Account = cmp.Or(opts.Account, aws.account)
		opts.SecretKey = aws.secret
		if opts.Now == nil {
			opts.Now = aws.now
		}
	}
	opts.Account = cmp.Or(opts.Account, "123456789012")
	opts.AccessKey = cmp.Or(opts.AccessKey, "AKIDLARDERTEST")
	opts.SecretKey = cmp.Or(opts.SecretKey, "secret")
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.AWS == nil {
		opts.AWS = newAWS(opts)
	}
	s := &Server{
		opts:    opts,
		aws:     opts.AWS,
		signer:  signer(opts.SecretKey),
		limits:  limits{buckets: make(map[Op]*bucket)},
		chunks:  sync.Pool{New: func() any { return new(make([]byte, maxChunk)) }},
		repos:   make(map[string]*repository),
		blobs:   make(map[digest.Digest]*blob),
		objects: make(map[string]*blob),
	}
	s.SetBandwidth(opts.BytesPerSecond)
	s.SetLatency(opts.Latency)
	if opts.Public {
		s.SetPullLimit(anonymousPulls, signedInPulls, pullBurst)
	}
	s.region = s.aws.join(s)
	return s
}

// AWS returns what the registry shares with those that were, or will be, made
// with it as [Options.AWS].
func (s *Server) AWS() *AWS { return s.aws }

// Host returns the name that AWS would give this registry, such as
// 123456789012.dkr.ecr.us-east-1.amazonaws.com.
func (s *Server) Host() string {
	if s.opts.Public {
		return publicHost
	}
	return hostOf(s.opts.Account, s.opts.Region)
}

func hostOf(account, region string) string {
	domain := "amazonaws.com"
	if partition(region) == "aws-cn" {
		domain = "amazonaws.com.cn"
	}
	return account + ".dkr.ecr." + region + "." + domain
}

// Registry returns the handler of the registry (/v2/), of the ECR API and STS
// (POST /), of ECR Public's tokens (/token/), and of the credentials of containers and instances. Requests whose
// Host names another registry of the same [AWS] are answered by that one, and
// calls that are signed for another region by one of that region.
func (s *Server) Registry() http.Handler { return http.HandlerFunc(s.serveRegistry) }

// Storage returns the handler of the signed URLs. It is meant for HTTP/1.1.
func (s *Server) Storage() http.Handler { return http.HandlerFunc(s.serveStorage) }

// SetStorageURL says where [Server.Storage] is served: a scheme and a host
// other than the registry's in its name, not only in its port, since that is
// what makes clients drop their credentials on the way.
func (s *Server) SetStorageURL(u string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storageURL = strings.TrimSuffix(u, "/")
}

// SetBandwidth changes [Options.BytesPerSecond], for answers under way too.
func (s *Server) SetBandwidth(bytesPerSecond int64) { s.bandwidth.Store(bytesPerSecond) }

// SetLatency changes [Options.Latency] for requests to come.
func (s *Server) SetLatency(d time.Duration) { s.latency.Store(int64(d)) }

// repositoryName is ECR's grammar: API reference, CreateRepository.
var repositoryName = regexp.MustCompile(
	`^(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// SetRepositoryPolicy gives a repository, which it creates if need be, the
// policy that says who else may use it.
func (s *Server) SetRepositoryPolicy(repo string, p Policy) error {
	if !repositoryName.MatchString(repo) {
		return fmt.Errorf("setting a repository policy: %q is not a repository name", repo)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repository(repo).access = slices.Clone(p)
	return nil
}

// AddBlob puts a blob into a repository, which it creates if need be. It reads
// the whole content once, for its digest.
func (s *Server) AddBlob(repo string, c Content) (ocispec.Descriptor, error) {
	if !repositoryName.MatchString(repo) {
		return ocispec.Descriptor{}, fmt.Errorf("adding a blob: %q is not a repository name", repo)
	}
	dgst, err := digest.FromReader(io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("hashing a blob for %s: %w", repo, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repository(repo).blobs[dgst] = s.blob(dgst, c)
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: c.Size()}, nil
}

// blob returns the blob of a digest, of this content if it is new. The caller
// holds s.mu.
func (s *Server) blob(dgst digest.Digest, c Content) *blob {
	b := s.blobs[dgst]
	if b == nil {
		b = &blob{content: c, digest: dgst, path: s.objectPath(dgst)}
		s.blobs[dgst] = b
		s.objects[b.path] = b
	}
	return b
}

// AddManifest puts a manifest into a repository, which it creates if need be,
// and moves tag to it unless that is empty. The manifest is served as it is,
// under mediaType: nothing asks that it makes sense, or that the repository
// holds what it names. A manifest with a subject becomes a referrer of it.
func (s *Server) AddManifest(repo, tag, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	if !repositoryName.MatchString(repo) {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest: %q is not a repository name", repo)
	}
	if tag != "" && !tagName.MatchString(tag) {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest to %s: %q is not a tag", repo, tag)
	}
	if len(raw) > maxManifestSize {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest to %s: %d bytes exceed the %d that ECR takes",
			repo, len(raw), maxManifestSize)
	}
	m := manifest{mediaType: mediaType, raw: bytes.Clone(raw), digest: digest.FromBytes(raw)}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repository(repo)
	if was := r.tags[tag]; was != "" && was != m.digest && !r.mutability.movable(tag) {
		return ocispec.Descriptor{}, fmt.Errorf("adding a manifest to %s: the tag %s exists and is immutable", repo, tag)
	}
	s.putManifest(r, m)
	if tag != "" {
		r.tags[tag] = m.digest
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: m.digest, Size: int64(len(raw))}, nil
}

// putManifest adds a manifest unless it is there. The caller holds s.mu.
func (s *Server) putManifest(r *repository, m manifest) {
	if _, known := r.manifests[m.digest]; known {
		return
	}
	r.manifests[m.digest] = m
	r.states[m.digest] = ImageState{Pushed: s.opts.Now()}
	if subject, desc, ok := m.referrer(); ok {
		r.referrers[subject] = append(r.referrers[subject], desc)
	}
}

// repository returns the repository of a name, new if there is none. The
// caller holds s.mu.
func (s *Server) repository(name string) *repository {
	r := s.repos[name]
	if r == nil {
		r = &repository{
			blobs:     make(map[digest.Digest]*blob),
			manifests: make(map[digest.Digest]manifest),
			tags:      make(map[string]digest.Digest),
			referrers: make(map[digest.Digest][]ocispec.Descriptor),
			states:    make(map[digest.Digest]ImageState),
			checked:   make(map[string]time.Time),
			created:   s.opts.Now(),
		}
		s.repos[name] = r
	}
	return r
}
