package distribution

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/storage"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/token"
)

// Options describes a [Handler].
type Options struct {
	Front    *frontend.Frontend
	Registry *registry.Registry
	Bucket   *storage.Bucket
	Tokens   *token.Issuer
	Accounts *iam.Accounts
	// Pulls limits the pulls from ECR Public; not used by a private registry.
	Pulls *PullLimits
	// NoReferrers makes it a registry without /referrers/.
	NoReferrers bool
}

// Handler answers the requests of one registry. It may be used by several goroutines
// at once.
type Handler struct{ opts Options }

// New returns a handler.
func New(opts Options) *Handler { return &Handler{opts} }

// fail sends an error in the form of the distribution specification.
func fail(x *frontend.Exchange, e frontend.Error) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	x.ReplyJSON(e.Status, "application/json; charset=utf-8", struct {
		Errors []entry `json:"errors"`
	}{[]entry{{e.Code, e.Message}}})
}

// ServeHTTP answers requests of /v2/.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := parseRoute(r.URL.Path)
	of := frontend.Subject{Op: rt.op, Content: h.contentOf(rt)}
	h.opts.Front.Serve(w, r, of, fail, func(x *frontend.Exchange) { h.answer(x, rt) })
}

// contentOf returns the digest of a manifest's tag, or else the reference itself.
func (h *Handler) contentOf(rt route) digest.Digest {
	if rt.op == frontend.Manifest {
		if repo := h.opts.Registry.Repository(rt.repository); repo != nil {
			if dgst := repo.Resolve(rt.reference); dgst != "" {
				return dgst
			}
		}
	}
	return digest.Digest(rt.reference)
}

func (h *Handler) answer(x *frontend.Exchange, rt route) {
	x.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	caller, ok := h.admit(x, rt.op)
	if !ok {
		return
	}
	if x.Request.Method != http.MethodGet && !x.Head() {
		fail(x, frontend.Error{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: "The operation is unsupported."})
		return
	}
	switch rt.op {
	case 0:
		x.Reply(http.StatusNotFound, "", nil)
	case frontend.Ping:
		x.Reply(http.StatusOK, "", nil)
	case frontend.Catalog:
		h.answerCatalog(x, caller)
	default:
		h.answerInRepository(x, rt, caller)
	}
}

// answerInRepository answers a request of a repository if the caller may act in it.
func (h *Handler) answerInRepository(x *frontend.Exchange, rt route, caller iam.Principal) {
	reach := func() (*registry.Repository, string) {
		return h.opts.Registry.Reach(caller, rt.action(x.Head()), rt.repository)
	}
	repo, denied := reach()
	if denied == "" && rt.op == frontend.Manifest {
		if i := h.opts.Registry.Import(caller, rt.repository, rt.reference); i != nil {
			x.Pause(i.Delay)
			i.Finish()
			if !i.Miss {
				repo, _ = reach()
			}
		}
	}
	switch {
	case denied != "":
		fail(x, frontend.Error{Status: http.StatusForbidden, Code: "DENIED", Message: denied})
	case repo == nil:
		fail(x, frontend.Error{Status: http.StatusNotFound, Code: "NAME_UNKNOWN", Message: h.opts.Registry.NotFound(rt.repository)})
	case rt.op == frontend.Manifest:
		answerManifest(x, repo, rt.reference, h.opts.Registry.Records(caller))
	case rt.op == frontend.Blob:
		h.answerBlob(x, repo, rt.reference)
	case rt.op == frontend.Tags:
		answerTags(x, repo, rt.repository)
	case rt.op == frontend.Referrers:
		h.answerReferrers(x, repo, rt.reference)
	}
}

// answerManifest sends a manifest. Like ECR it sends the digest with a HEAD but not
// with a GET. A GET is recorded as a pull if record is true.
func answerManifest(x *frontend.Exchange, repo *registry.Repository, reference string, record bool) {
	dgst, isTag := digest.Digest(reference), registry.IsTag(reference)
	if !isTag && dgst.Validate() != nil {
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "TAG_INVALID",
			Message: "Invalid parameter at 'imageTag' failed to satisfy constraint"})
		return
	}
	if isTag {
		dgst = repo.Resolve(reference)
	}
	m, ok := repo.Manifest(dgst)
	if !ok {
		fail(x, frontend.Error{Status: http.StatusNotFound, Code: "MANIFEST_UNKNOWN", Message: "Requested image not found"})
		return
	}
	if isTag {
		m = convert(m, x.Request.Header.Values("Accept"))
	}
	switch {
	case x.Head():
		x.Header().Set("Docker-Content-Digest", m.Digest.String())
		x.Header().Set("Sizes", "")
	case record:
		repo.RecordPull(dgst)
	}
	x.Reply(http.StatusOK, m.MediaType, m.Raw)
}

// answerBlob redirects a GET to storage.
func (h *Handler) answerBlob(x *frontend.Exchange, repo *registry.Repository, reference string) {
	b := repo.Blob(digest.Digest(reference))
	switch {
	case b == nil:
		fail(x, frontend.Error{Status: http.StatusNotFound, Code: "BLOB_UNKNOWN", Message: "blob unknown to registry"})
	case x.Head():
		x.Header().Set("Content-Type", "application/octet-stream")
		x.Header().Set("Content-Length", strconv.FormatInt(b.Content.Size(), 10))
		x.Header().Set("Docker-Content-Digest", b.Digest.String())
		x.WriteHeader(http.StatusOK)
	default:
		x.Header().Set("Location", h.opts.Bucket.SignedURL(b))
		x.Reply(http.StatusTemporaryRedirect, "", nil)
	}
}

// answerTags sends a page of the tags.
func answerTags(x *frontend.Exchange, repo *registry.Repository, name string) {
	if tags, ok := page(x, repo.Tags(), "/v2/"+name+"/tags/list"); ok {
		x.ReplyJSON(http.StatusOK, listType, struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{name, tags})
	}
}

// answerCatalog sends a page of the repositories.
func (h *Handler) answerCatalog(x *frontend.Exchange, caller iam.Principal) {
	reg := h.opts.Registry
	if denied := caller.Denied("ecr:DescribeRepositories", reg.ARN("*"), reg.Account(), nil); denied != "" {
		fail(x, frontend.Error{Status: http.StatusForbidden, Code: "DENIED", Message: denied})
		return
	}
	if names, ok := page(x, reg.Names(), catalogPath); ok {
		x.ReplyJSON(http.StatusOK, listType, struct {
			Repositories []string `json:"repositories"`
		}{names})
	}
}

// answerReferrers sends an index of the manifests that have a digest as their subject.
// The index is empty if there are none.
func (h *Handler) answerReferrers(x *frontend.Exchange, repo *registry.Repository, reference string) {
	if h.opts.NoReferrers {
		x.Reply(http.StatusNotFound, "", nil)
		return
	}
	subject, err := digest.Parse(reference)
	if err != nil {
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "invalid digest"})
		return
	}
	referrers := repo.Referrers(subject)
	if kind := x.Request.URL.Query().Get("artifactType"); kind != "" {
		x.Header().Set("OCI-Filters-Applied", "artifactType")
		referrers = slices.DeleteFunc(referrers, func(d ocispec.Descriptor) bool { return d.ArtifactType != kind })
	}
	x.ReplyJSON(http.StatusOK, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: append([]ocispec.Descriptor{}, referrers...), // "manifests" is an array, even if empty
	})
}

// admit returns the principal whose token a request has. It answers a request
// without a valid token; of ECR Public also a HEAD of a blob, and a pull that is
// above the limit.
func (h *Handler) admit(x *frontend.Exchange, op frontend.Op) (caller iam.Principal, ok bool) {
	if !h.opts.Registry.Public() {
		arn, err := basicToken(x.Request, h.opts.Tokens)
		if err != nil {
			refusePrivate(x, err, h.opts.Registry.Host())
			return iam.Principal{}, false
		}
		return h.principal(arn), true
	}
	arn, err := bearerToken(x.Request, h.opts.Tokens)
	if op == frontend.Blob && x.Head() {
		err = token.ErrInvalid // whatever the token is
	}
	if err != nil {
		refusePublic(x, err)
		return iam.Principal{}, false
	}
	if op == frontend.Manifest && !x.Head() && !h.opts.Pulls.allow(arn == "") {
		fail(x, frontend.Throttled(op))
		return iam.Principal{}, false
	}
	return h.principal(arn), true
}

// principal returns the principal of a token; the anonymous one if arn is empty.
func (h *Handler) principal(arn string) iam.Principal {
	if arn == "" {
		return iam.Principal{}
	}
	return h.opts.Accounts.Principal(arn)
}

// ServeToken answers requests of ECR Public's token endpoint: everyone gets a bearer
// token, and a request with the API's token as basic credentials gets one that counts
// as signed in.
func (h *Handler) ServeToken(w http.ResponseWriter, r *http.Request) {
	h.opts.Front.Serve(w, r, frontend.Subject{Op: frontend.Token}, fail, func(x *frontend.Exchange) {
		// Clients that ask for another scope than that of the challenge are served too.
		if r.URL.Query().Get("service") != registry.PublicHost {
			fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED",
				Message: "Invalid parameter at 'service' failed to satisfy constraint"})
			return
		}
		var arn string
		if r.Header.Get("Authorization") != "" {
			var err error
			if arn, err = basicToken(r, h.opts.Tokens); err != nil {
				refusePublic(x, err)
				return
			}
		}
		x.ReplyJSON(http.StatusOK, "application/json; charset=utf-8", map[string]string{"token": h.opts.Tokens.Bearer(arn)})
	})
}

// IsTokenPath reports whether a path is ECR Public's token endpoint.
func IsTokenPath(path string) bool { return path == "/token/" || path == "/token" }
