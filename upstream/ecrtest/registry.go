package ecrtest

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// tagName is the specification's grammar of tags, which are longer at ECR.
var tagName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,299}$`)

// route is what the path of a request to the registry asks for.
type route struct {
	op   Op // 0 for a path that is not the registry's
	repo string
	ref  string // a tag or digest; "" for Ping and Tags
}

// parseRoute reads a path. It does not ask that the repository's name or the
// reference are good ones.
func parseRoute(path string) route {
	if path == "/v2" || path == "/v2/" {
		return route{op: Ping}
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok && repo != "" {
		return route{op: Tags, repo: repo}
	}
	rest, ref := cutLast(rest)
	repo, kind := cutLast(rest)
	ops := map[string]Op{"manifests": Manifest, "blobs": Blob, "referrers": Referrers}
	if op := ops[kind]; op != 0 && repo != "" && ref != "" {
		return route{op: op, repo: repo, ref: ref}
	}
	return route{}
}

// cutLast slices s around its last slash.
func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) {
	if named := s.aws.named(r.Host); named != nil {
		s = named
	}
	switch {
	case r.URL.Path == "/":
		s.serveAPI(w, r)
		return
	case s.opts.Public && isToken(r.URL.Path):
		s.serveToken(w, r)
		return
	case isCredentials(r.URL.Path):
		s.serveCredentials(w, r)
		return
	}
	rt := parseRoute(r.URL.Path)
	s.exchange(w, r, subject{op: rt.op, content: s.contentOf(rt)}, func(x *exchange) { s.answer(x, rt) })
}

// contentOf returns the digest that a manifest's tag stands for, else the
// reference itself.
func (s *Server) contentOf(rt route) digest.Digest {
	if rt.op == Manifest {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if repo := s.repos[rt.repo]; repo != nil && repo.tags[rt.ref] != "" {
			return repo.tags[rt.ref]
		}
	}
	return digest.Digest(rt.ref)
}

func (s *Server) answer(x *exchange, rt route) {
	x.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if s.opts.Public && !s.admitPublic(x, rt.op) || !s.opts.Public && !s.admit(x) {
		return
	}
	if x.r.Method != http.MethodGet && !x.head() {
		x.fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
		return
	}
	switch rt.op {
	case Ping:
		x.reply(http.StatusOK, "", nil)
		return
	case 0:
		x.reply(http.StatusNotFound, "", nil)
		return
	}
	repo, denied := s.reach(x.caller, rt.action(x.head()), rt.repo)
	if denied == "" && rt.op == Manifest && s.imported(x, repo, rt.repo, rt.ref) {
		repo, _ = s.reach(x.caller, rt.action(x.head()), rt.repo)
	}
	switch {
	case denied != "":
		x.fail(http.StatusForbidden, "DENIED", denied)
		return
	case repo == nil:
		x.fail(http.StatusNotFound, "NAME_UNKNOWN", s.noRepository(rt.repo))
		return
	}
	switch rt.op {
	case Manifest:
		s.answerManifest(x, repo, rt.ref)
	case Blob:
		s.answerBlob(x, repo, rt.ref)
	case Tags:
		s.answerTags(x, repo, rt.repo)
	case Referrers:
		s.answerReferrers(x, repo, rt.ref)
	}
}

// action returns which action a request carries out on its repository.
func (rt route) action(head bool) string {
	switch {
	case rt.op == Tags:
		return "ecr:ListImages"
	case rt.op == Blob && head:
		return "ecr:BatchCheckLayerAvailability"
	case rt.op == Blob:
		return "ecr:GetDownloadUrlForLayer"
	default:
		return "ecr:BatchGetImage"
	}
}

// reach returns a repository for a caller to act on. It returns nil if there is
// none, or if he may not act, and then why.
func (s *Server) reach(who caller, action, name string) (repo *repository, denied string) {
	var policy Policy
	s.mu.RLock()
	if repo = s.repos[name]; repo != nil {
		policy = repo.access
	}
	s.mu.RUnlock()
	if s.opts.Public {
		return repo, ""
	}
	denied = judge(who, action, arnOf(s.opts.Region, s.opts.Account, name), s.opts.Account, policy)
	switch {
	case denied == "":
		return repo, ""
	case repo == nil && who.account != s.opts.Account:
		// There is no policy to allow it, and ECR says what there is not.
		return nil, ""
	default:
		return nil, denied
	}
}

// noRepository is ECR's text. ECR Public's registries are the aliases that
// names begin with.
func (s *Server) noRepository(name string) string {
	if alias, rest, ok := strings.Cut(name, "/"); ok && s.opts.Public {
		return noRepository(rest, alias)
	}
	return noRepository(name, s.opts.Account)
}

// answerManifest gives the digest with a HEAD and, as ECR does, not with a GET.
func (s *Server) answerManifest(x *exchange, repo *repository, ref string) {
	dgst := digest.Digest(ref)
	isTag := tagName.MatchString(ref)
	if !isTag && dgst.Validate() != nil {
		x.fail(http.StatusBadRequest, "TAG_INVALID", "Invalid parameter at 'imageTag' failed to satisfy constraint")
		return
	}
	s.mu.RLock()
	if isTag {
		dgst = repo.tags[ref]
	}
	m, ok := repo.manifests[dgst]
	archived := repo.states[dgst].Status == "ARCHIVED"
	s.mu.RUnlock()
	if !ok || archived {
		x.fail(http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found")
		return
	}
	if x.head() {
		x.Header().Set("Docker-Content-Digest", m.digest.String())
		x.Header().Set("Sizes", "")
	} else {
		s.recordPull(repo, m)
	}
	x.reply(http.StatusOK, m.mediaType, m.raw)
}

// answerBlob redirects a GET to storage.
func (s *Server) answerBlob(x *exchange, repo *repository, ref string) {
	s.mu.RLock()
	b := repo.blobs[digest.Digest(ref)]
	s.mu.RUnlock()
	switch {
	case b == nil:
		x.fail(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	case x.head():
		x.Header().Set("Content-Type", "application/octet-stream")
		x.Header().Set("Content-Length", strconv.FormatInt(b.content.Size(), 10))
		x.Header().Set("Docker-Content-Digest", b.digest.String())
		x.WriteHeader(http.StatusOK)
	default:
		b.counts.redirects.Add(1)
		x.Header().Set("Location", s.signedURL(b))
		x.reply(http.StatusTemporaryRedirect, "", nil)
	}
}
