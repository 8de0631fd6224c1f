package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/upstream/name"
)

// Where the client's own rights decide (Source.As is set), a request is admitted before anything
// else of the proxy sees it, and the source is replaced by one that asks as the client. So no
// other file knows about credentials.

// rights knows which clients get what. It is safe for concurrent use.
type rights struct {
	gate    *access.Gate // nil if no upstream is such
	realm   string       // of challenges; "" for the URL that the client has used
	resolve func(route) (target, error)
	memory  memory
	metrics *metrics
}

// base returns the URL of Larder as a client has reached it.
func (rs *rights) base(r *http.Request) string {
	switch {
	case rs.realm != "":
		return rs.realm
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// challenge returns the error for a request that lacks a good token, and sets the header.
func (rs *rights) challenge(w http.ResponseWriter, r *http.Request, t target, why string) error {
	c := access.Challenge{Base: rs.base(r), Upstream: t.repo.Upstream, Error: why}
	if t.kind != kindBase {
		c.Name = t.requested()
	}
	w.Header().Set("WWW-Authenticate", c.String())
	return &challengeError{c}
}

// check returns the target of a request as that of its client. Targets of other upstreams are
// returned as they are, at no cost. /v2/ itself is challenged while there is an upstream whose clients need
// tokens: podman, CRI-O, skopeo and classic Docker look for a challenge there alone.
func (rs *rights) check(w http.ResponseWriter, r *http.Request, t target) (target, error) {
	if rs.gate == nil || t.kind != kindBase && t.source.As == nil {
		return t, nil
	}
	token, err := access.Bearer(r.Header)
	if err != nil {
		return t, malformed{err}
	}
	if token == "" {
		return t, rs.challenge(w, r, t, "")
	}
	grant, ok := rs.gate.Grant(token)
	switch {
	case !ok:
		return t, rs.challenge(w, r, t, access.InvalidToken)
	case t.kind == kindBase:
		return t, nil
	case !grant.Covers(access.Repository(t.repo)):
		return t, rs.challenge(w, r, t, access.InsufficientScope)
	}
	return rs.decide(r, t, grant.Credential)
}

// decide returns a target as that of the client with a credential, if the upstream lets it have that.
func (rs *rights) decide(r *http.Request, t target, c access.Credential) (target, error) {
	repo := access.Repository(t.repo)
	from, _ := name.Network(r.RemoteAddr) // all others count as one client
	why, err := rs.gate.Decide(r.Context(), access.Question{
		Credential: c,
		Repository: repo,
		Right:      rightOf(t.kind),
		Reference:  t.reference,
		From:       from,
		Ask: func(ctx context.Context, since time.Time) error {
			return rs.ask(t.source.As(ctx, c, since), t)
		},
	})
	t.user, t.why = c.User(), why
	rs.metrics.decided(why, err)
	if errors.Is(err, access.ErrRefused) {
		err = &clientRefused{err, repo.Upstream, repo.Name, t.user}
	}
	if err != nil {
		return t, err
	}
	t.source = asClient(t, rs.gate, c)
	return t, nil
}

// rightOf is what a client needs to get something of a kind.
func rightOf(k kind) access.Right {
	switch k {
	case kindTags:
		return access.List
	case kindBlob:
		return access.PullBlobs
	}
	return access.Pull
}

// ask asks the upstream whether the login of ctx may pull from a repository: for what the client
// wants of it, so that content which is not cached and content which is get the same answer.
func (rs *rights) ask(ctx context.Context, t target) error {
	share := rs.memory.manifest(t.metricName())
	defer share.release()
	ctx = t.within(ctx, share.read)
	switch t.kind {
	case kindTags:
		_, _, err := t.source.List(ctx, t.repo.Name, "tags/list", url.Values{"n": {"1"}})
		return err
	case kindBlob:
		_, err := t.source.BlobSize(ctx, t.repo.Name, t.digest)
		return err
	}
	_, _, err := t.source.Manifest(ctx, t.repo.Name, t.reference, true)
	return err
}

// asClient returns the source of a target that asks with a client's credential. If the upstream refuses it
// now, or hides from it what it asks for, the source asks with those of others that the upstream has
// let pull from the repository: the answer is for all clients that wait for it, and is kept. A list of
// tags is for this client alone, and is asked for with its credential alone.
func asClient(t target, gate *access.Gate, c access.Credential) Source {
	repo := access.Repository(t.repo)
	return t.source.with(gate, repo, func() ([]access.Credential, error) {
		all := []access.Credential{c}
		if t.kind == kindTags {
			return all, nil
		}
		for _, other := range gate.Accepted(repo) {
			if other != c {
				all = append(all, other)
			}
		}
		return all, nil
	})
}

// unattended returns a source for what no client waits for: with the node's own login if it has
// one, else with that of the client which the upstream has let pull last.
func (rs *rights) unattended(s Source, repo access.Repository) Source {
	if s.As == nil || s.HasLogin() || rs.gate == nil {
		return s
	}
	return s.with(rs.gate, repo, func() ([]access.Credential, error) {
		all := rs.gate.Accepted(repo)
		if len(all) == 0 {
			return nil, noLogin{repo}
		}
		return all, nil
	})
}

// noLogin is the error of what waits until a client of a repository has come.
type noLogin struct{ repo access.Repository }

func (e noLogin) Error() string {
	return fmt.Sprintf("ask %s: there is no login for it until a client has pulled from it", e.repo)
}

// Postponed is for [Upstream].
func (noLogin) Postponed() bool { return true }

// Unwrap makes it something that does not exist.
func (noLogin) Unwrap() error { return fs.ErrNotExist }

// personal is an upstream's refusal of clients' credentials, which holds for no other.
type personal struct{ error }

// Unwrap is for errors.As.
func (e personal) Unwrap() error { return e.error }

// Personal has the cache not repeat it to others: see [cache.Ask].
func (personal) Personal() bool { return true }

// with returns a source that asks with the first of some credentials to which the upstream gives what
// is asked for. The gate learns which of them the upstream refuses in the repository.
func (s Source) with(gate *access.Gate, repo access.Repository, credentials func() ([]access.Credential, error)) Source {
	try := func(ctx context.Context, right access.Right, ask func(context.Context) error) error {
		all, err := credentials()
		for _, c := range all {
			err = ask(s.As(ctx, c, time.Time{}))
			if !isRefusal(err) || cache.IsPostponed(err) {
				return err
			}
			if errors.Is(err, fs.ErrPermission) {
				gate.Refused(repo, c, right)
			}
			err = personal{err}
		}
		return err
	}
	inner := s
	s.Upstream = clientUpstream{inner.Upstream, try}
	s.OpenBlob = func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (content cache.Content, err error) {
		err = try(ctx, access.PullBlobs, func(ctx context.Context) error {
			content, err = inner.OpenBlob(ctx, repository, dgst, part)
			return err
		})
		return content, err
	}
	return s
}

// clientUpstream asks an upstream with clients' credentials.
type clientUpstream struct {
	inner Upstream
	try   func(ctx context.Context, right access.Right, ask func(context.Context) error) error
}

func (u clientUpstream) Manifest(ctx context.Context, repository, reference string, head bool) (desc ocispec.Descriptor, raw []byte, err error) {
	err = u.try(ctx, access.Pull, func(ctx context.Context) error {
		desc, raw, err = u.inner.Manifest(ctx, repository, reference, head)
		return err
	})
	return desc, raw, err
}

func (u clientUpstream) BlobSize(ctx context.Context, repository string, dgst digest.Digest) (size int64, err error) {
	err = u.try(ctx, access.PullBlobs, func(ctx context.Context) error {
		size, err = u.inner.BlobSize(ctx, repository, dgst)
		return err
	})
	return size, err
}

// List is for [Upstream]. Registries refuse the list of referrers to clients that they let pull, so that this
// refusal ends no right to pull.
func (u clientUpstream) List(ctx context.Context, repository, resource string, query url.Values) (header http.Header, body []byte, err error) {
	err = u.try(ctx, access.List, func(ctx context.Context) error {
		header, body, err = u.inner.List(ctx, repository, resource, query)
		return err
	})
	return header, body, err
}

// token answers a request for a token.
func (rs *rights) token(w *recorder, r *http.Request) error {
	if rs.gate == nil {
		return errNoSuchPath
	}
	req, err := access.ParseRequest(r)
	if err != nil {
		return malformed{fmt.Errorf("read the request for a token: %w", err)}
	}
	grant, source := rs.grantFor(req)
	if grant.Credential != (access.Credential{}) {
		if err := rs.login(r, grant, source); err != nil {
			return err
		}
	}
	token := rs.gate.NewToken(grant)
	body, err := json.Marshal(struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   int       `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}{token, token, int(access.TokenLife / time.Second), time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	sendDocument(w, r, cache.Miss, "application/json", body)
	return nil
}

// grantFor returns what a client asks for: its credential for the repositories of one upstream. It is
// anonymous if it asks for no repository whose upstream takes clients' credentials: then the
// credential is not for that upstream, and is dropped.
func (rs *rights) grantFor(req access.Request) (grant access.Grant, source Source) {
	for _, name := range req.Names {
		rt, err := parseName(name, req.Upstream)
		if err != nil {
			continue
		}
		t, err := rs.resolve(rt)
		if err != nil || t.source.As == nil {
			continue
		}
		if len(grant.Repositories) > 0 && grant.Repositories[0].Upstream != t.repo.Upstream {
			continue // the credential is for one upstream
		}
		source = t.source
		grant.Repositories = append(grant.Repositories, access.Repository(t.repo))
	}
	if len(grant.Repositories) > 0 {
		grant.Credential = req.Credential
	}
	return grant, source
}

// login has the upstream accept the credential of a grant. What it said lately is not asked again.
// An upstream that cannot be asked is believed to accept what it has accepted before.
func (rs *rights) login(r *http.Request, grant access.Grant, source Source) error {
	repo := grant.Repositories[0]
	if rs.gate.MayPull(grant.Credential, grant.Repositories...) {
		return nil
	}
	from, _ := name.Network(r.RemoteAddr) // all others count as one client
	why, err := rs.gate.Decide(r.Context(), access.Question{
		Credential: grant.Credential,
		Repository: repo,
		Right:      access.Login,
		From:       from,
		Ask: func(ctx context.Context, since time.Time) error {
			return source.Login(source.As(ctx, grant.Credential, since), repo.Name)
		},
	})
	if err == nil || errors.Is(err, fs.ErrNotExist) && !cache.IsPostponed(err) {
		return nil // it is counted when the client asks for something; if there is nothing to log in to, that decides alone
	}
	rs.metrics.decided(why, err)
	if errors.Is(err, access.ErrRefused) {
		return loginError{&clientRefused{err, repo.Upstream, repo.Name, grant.Credential.User()}}
	}
	return err
}
