package ecrapi

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/awsapi"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/token"
)

// Directory finds registries.
type Directory interface {
	// Find returns the private registry of an account in a region, or nil.
	Find(account, region string) *registry.Registry
}

// Options describes an [API].
type Options struct {
	Front     *frontend.Frontend
	Registry  *registry.Registry
	Tokens    *token.Issuer
	Verifier  awsapi.Verifier
	Log       *awsapi.Log
	Directory Directory
}

// API answers the calls to one registry. It may be used by several goroutines at
// once.
type API struct{ opts Options }

// New returns an API.
func New(opts Options) *API { return &API{opts} }

// Serve answers a call of the ECR API.
func (a *API) Serve(w http.ResponseWriter, r *http.Request, c awsapi.Call) {
	of := frontend.Subject{Op: frontend.API, Operation: c.Operation}
	a.opts.Front.Serve(w, r, of, fail, func(x *frontend.Exchange) { a.answer(x, c) })
}

// ServeRevocations answers a call of AWS Signer's GetRevocationStatus. Signer is asked in the region of the
// signing profile, which may be another one.
func (a *API) ServeRevocations(w http.ResponseWriter, r *http.Request, c awsapi.Call) {
	const operation = "GetRevocationStatus"
	of := frontend.Subject{Op: frontend.API, Operation: operation}
	a.opts.Front.Serve(w, r, of, fail, func(x *frontend.Exchange) {
		caller, refused := a.opts.Verifier.Verify(c, c.Signature.Region, "signer")
		if refused != nil {
			fail(x, *refused)
			return
		}
		a.opts.Log.Add(awsapi.Entry{Principal: caller.ARN, Region: c.Signature.Region, Action: "signer:" + operation})
		a.revocationStatus(request{Exchange: x, caller: caller, body: c.Body})
	})
}

func (a *API) answer(x *frontend.Exchange, c awsapi.Call) {
	operations := map[string]func(*API, request){
		"GetAuthorizationToken": (*API).getAuthorizationToken,
		"GetLifecyclePolicy":    (*API).getLifecyclePolicy,
		"DescribeImages":        (*API).describeImages,
		"DescribeRepositories":  (*API).describeRepositories,
		"DescribeRegistry":      (*API).describeRegistry,

		"DescribeImageScanFindings":    (*API).describeImageScanFindings,
		"DescribeImageSigningStatus":   (*API).describeImageSigningStatus,
		"ListPullTimeUpdateExclusions": (*API).listPullTimeUpdateExclusions,
	}
	service := "ecr"
	if a.opts.Registry.Public() {
		service = "ecr-public"
		operations = map[string]func(*API, request){"GetAuthorizationToken": (*API).getPublicAuthorizationToken}
	}
	unknown := frontend.Error{Status: http.StatusBadRequest, Code: "UnknownOperationException"}
	if c.Operation == "" || c.Public != a.opts.Registry.Public() {
		fail(x, unknown)
		return
	}
	caller, refused := a.opts.Verifier.Verify(c, a.opts.Registry.Region(), service)
	if refused != nil {
		fail(x, *refused)
		return
	}
	a.opts.Log.Add(awsapi.Entry{Principal: caller.ARN, Region: c.Signature.Region, Action: service + ":" + c.Operation})
	answer := operations[c.Operation]
	if answer == nil {
		fail(x, unknown)
		return
	}
	answer(a, request{Exchange: x, caller: caller, body: c.Body})
}

// authorizationData is a token in an answer.
type authorizationData struct {
	AuthorizationToken string  `json:"authorizationToken"`
	ExpiresAt          float64 `json:"expiresAt"`
	ProxyEndpoint      string  `json:"proxyEndpoint,omitempty"`
}

// authorize issues a token for the caller.
func (a *API) authorize(r request) authorizationData {
	password, expires := a.opts.Tokens.Password(r.caller.ARN)
	return authorizationData{
		AuthorizationToken: base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		ExpiresAt:          timestamp(expires),
	}
}

func (a *API) getAuthorizationToken(r request) {
	if !r.permit("ecr:GetAuthorizationToken", "*") {
		return
	}
	data := a.authorize(r)
	data.ProxyEndpoint = "https://" + registry.HostOf(r.caller.Account, a.opts.Registry.Region())
	r.reply(struct {
		AuthorizationData []authorizationData `json:"authorizationData"`
	}{[]authorizationData{data}})
}

func (a *API) getPublicAuthorizationToken(r request) {
	if r.permit("ecr-public:GetAuthorizationToken", "*") && r.permit("sts:GetServiceBearerToken", "*") {
		r.reply(struct {
			AuthorizationData authorizationData `json:"authorizationData"`
		}{a.authorize(r)})
	}
}

// find returns the registry of an account, in the region of this one, or nil.
func (a *API) find(account string) *registry.Registry {
	return a.opts.Directory.Find(account, a.opts.Registry.Region())
}

// read reads the body of a call into in, of which id is a part, completes id, and
// returns the repository. It answers a call whose body is not valid, and one that
// reach answers; repo is then nil.
func (a *API) read(r request, action string, in any, id *repositoryName) (repo *registry.Repository) {
	if !r.decode(in) {
		return nil
	}
	id.RegistryID = cmp.Or(id.RegistryID, r.caller.Account)
	_, repo = a.reach(r, action, *id)
	return repo
}

// reach returns a repository in which the caller may carry out an action, and its
// registry. If the caller may not, or if there is no such repository, it answers the
// call and returns nil.
func (a *API) reach(r request, action string, id repositoryName) (*registry.Registry, *registry.Repository) {
	if owner := a.find(id.RegistryID); owner != nil {
		repo, denied := owner.Reach(r.caller, action, id.RepositoryName)
		switch {
		case denied != "":
			r.fail("AccessDeniedException", denied)
			return nil, nil
		case repo != nil:
			return owner, repo
		}
	}
	r.fail("RepositoryNotFoundException", registry.NotFound(id.RepositoryName, id.RegistryID))
	return nil, nil
}

func (a *API) getLifecyclePolicy(r request) {
	var in repositoryName
	repo := a.read(r, "ecr:GetLifecyclePolicy", &in, &in)
	if repo == nil {
		return
	}
	policy, evaluated := repo.LifecyclePolicy()
	if policy == "" {
		r.fail("LifecyclePolicyNotFoundException", fmt.Sprintf(
			"Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'",
			in.RepositoryName, in.RegistryID))
		return
	}
	var lastEvaluated float64
	if !evaluated.IsZero() {
		lastEvaluated = timestamp(evaluated)
	}
	r.reply(struct {
		repositoryName
		LifecyclePolicyText string  `json:"lifecyclePolicyText"`
		LastEvaluatedAt     float64 `json:"lastEvaluatedAt,omitempty"`
	}{in, policy, lastEvaluated})
}

// describeImages sends the images of a repository that are named, or else a page of all. Their
// order has no meaning.
func (a *API) describeImages(r request) {
	var in struct {
		repositoryName
		Filter struct {
			ImageStatus string `json:"imageStatus"`
		} `json:"filter"`
		ImageIDs   []imageID `json:"imageIds"`
		MaxResults *int      `json:"maxResults"`
		NextToken  string    `json:"nextToken"`
	}
	repo := a.read(r, "ecr:DescribeImages", &in, &in.repositoryName)
	if repo == nil {
		return
	}
	if len(in.ImageIDs) > 0 {
		details, missing := detailsOf(imageDetails(repo.Images(), in.repositoryName, "ANY"), in.ImageIDs)
		switch {
		case in.MaxResults != nil || in.NextToken != "":
			r.fail("InvalidParameterException", "Invalid parameter at 'maxResults' or 'nextToken': they cannot be used with imageIds")
		case missing != nil:
			r.fail("ImageNotFoundException", missing.Error())
		default:
			r.reply(struct {
				ImageDetails []imageDetail `json:"imageDetails"`
			}{details})
		}
		return
	}
	images := imageDetails(repo.Images(), in.repositoryName, cmp.Or(in.Filter.ImageStatus, registry.ActiveStatus))
	part, next, ok := page(r, images, in.MaxResults, in.NextToken, func(d imageDetail) string { return d.ImageDigest.String() })
	if ok {
		r.reply(struct {
			ImageDetails []imageDetail `json:"imageDetails"`
			NextToken    string        `json:"nextToken,omitempty"`
		}{part, next})
	}
}

// describeRepositories sends the repositories that are named, or else a page of all,
// sorted by name.
func (a *API) describeRepositories(r request) {
	var in struct {
		RegistryID      string   `json:"registryId"`
		RepositoryNames []string `json:"repositoryNames"`
		MaxResults      *int     `json:"maxResults"`
		NextToken       string   `json:"nextToken"`
	}
	if !r.decode(&in) {
		return
	}
	in.RegistryID = cmp.Or(in.RegistryID, r.caller.Account)
	type result struct {
		Repositories []repositoryDetail `json:"repositories"`
		NextToken    string             `json:"nextToken,omitempty"`
	}
	const action = "ecr:DescribeRepositories"
	if len(in.RepositoryNames) > 0 {
		var details []repositoryDetail
		for _, name := range in.RepositoryNames {
			owner, repo := a.reach(r, action, repositoryName{in.RegistryID, name})
			if repo == nil {
				return
			}
			details = append(details, newRepositoryDetail(owner, name, repo))
		}
		r.reply(result{Repositories: details})
		return
	}
	if !r.permit(action, registry.ARNOf(a.opts.Registry.Region(), in.RegistryID, "*")) {
		return
	}
	details := []repositoryDetail{} // an array, even if empty
	if owner := a.find(in.RegistryID); owner != nil {
		for _, name := range owner.Names() {
			details = append(details, newRepositoryDetail(owner, name, owner.Repository(name)))
		}
	}
	part, next, ok := page(r, details, in.MaxResults, in.NextToken, func(d repositoryDetail) string { return d.RepositoryName })
	if ok {
		r.reply(result{part, next})
	}
}
