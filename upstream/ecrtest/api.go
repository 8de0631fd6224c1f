package ecrtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// What X-Amz-Target begins with, in the protocol AWS JSON 1.1.
const (
	privateTarget = "AmazonEC2ContainerRegistry_V20150921."
	publicTarget  = "SpencerFrontendService."
)

// maxAPIRequest bounds the body of a call, in bytes.
const maxAPIRequest = 1 << 20

// call is a call of one of AWS's APIs.
type call struct {
	op        Op     // API or STS
	public    bool   // it is of ECR Public's API
	operation string // such as GetAuthorizationToken; empty if it is not one
	sig       signature
	refused   *refusal // why the signature does not count, if it does not
	body      []byte
}

// readCall reads a call, whoever made it.
func readCall(w http.ResponseWriter, r *http.Request) call {
	// net/http notices that a client leaves only once its request is read to the end.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIRequest))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c := call{op: API, body: body}
	c.sig, c.refused = readSignature(r)
	if strings.HasPrefix(r.Header.Get("Content-Type"), formType) {
		c.op = STS
		c.operation = stsOperation(body)
		return c
	}
	target := r.Header.Get("X-Amz-Target")
	operation, ok := strings.CutPrefix(target, privateTarget)
	if !ok {
		operation, c.public = strings.CutPrefix(target, publicTarget)
	}
	if (ok || c.public) && r.Method == http.MethodPost {
		c.operation = operation
	}
	return c
}

// serveAPI answers a call, or has the registry answer that it is signed for.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	c := readCall(w, r)
	if to := s.calledBy(c); to != nil {
		s = to
	}
	s.exchange(w, r, subject{op: c.op, operation: c.operation}, func(x *exchange) {
		switch {
		case c.op == STS:
			s.callSTS(x, c)
		case s.opts.Public:
			s.callPublicAPI(x, c)
		default:
			s.callAPI(x, c)
		}
	})
}

// calledBy returns the registry that a call to this one is for, which is
// another one where an endpoint serves several regions, or nil if there is none.
func (s *Server) calledBy(c call) *Server {
	if c.op == STS || c.public == s.opts.Public && (c.public || c.sig.region == s.opts.Region) {
		return s
	}
	return s.aws.find(func(other *Server) bool {
		return c.public && other.opts.Public || !c.public && !other.opts.Public && other.opts.Region == c.sig.region
	})
}

// callAPI answers a call of the ECR API.
func (s *Server) callAPI(x *exchange, c call) {
	operations := map[string]func(*Server, *exchange, []byte){
		"GetAuthorizationToken": (*Server).getAuthorizationToken,
		"GetLifecyclePolicy":    (*Server).getLifecyclePolicy,
		"DescribeImages":        (*Server).describeImages,
		"DescribeRepositories":  (*Server).describeRepositories,
	}
	answer := operations[c.operation]
	switch {
	case c.operation == "" || c.public:
		x.failAPI("UnknownOperationException", "")
	case !s.admitCall(x, c, s.opts.Region, "ecr"):
	case answer == nil:
		x.failAPI("UnknownOperationException", "")
	default:
		answer(s, x, c.body)
	}
}

// admitCall answers a call that nobody known has signed, and else counts it
// and says in x who has.
func (s *Server) admitCall(x *exchange, c call, region string, services ...string) bool {
	refused := c.refused
	if refused == nil {
		x.caller, refused = s.authenticate(c.sig, region, services...)
	}
	if refused != nil {
		x.failAPI(refused.code, refused.message)
		return false
	}
	s.aws.count(Call{Principal: x.caller.arn, Region: c.sig.region, Action: services[0] + ":" + c.operation})
	return true
}

// permit answers a call that the caller's own policy does not let him make, and
// tells whether it does.
func (x *exchange) permit(action, resource string) bool {
	why := judge(x.caller, action, resource, x.caller.account, nil)
	if why != "" {
		x.failAPI("AccessDeniedException", why)
	}
	return why == ""
}

// authorizationData is a token in an answer.
type authorizationData struct {
	AuthorizationToken string  `json:"authorizationToken"`
	ExpiresAt          float64 `json:"expiresAt"` // seconds since the Unix epoch
	ProxyEndpoint      string  `json:"proxyEndpoint,omitempty"`
}

func (s *Server) getAuthorizationToken(x *exchange, _ []byte) {
	if !x.permit("ecr:GetAuthorizationToken", "*") {
		return
	}
	data := s.newAuthorization(x.caller)
	data.ProxyEndpoint = "https://" + hostOf(x.caller.account, s.opts.Region)
	x.replyAPI(http.StatusOK, struct {
		AuthorizationData []authorizationData `json:"authorizationData"`
	}{[]authorizationData{data}})
}

// newAuthorization issues a token and puts it as the APIs do.
func (s *Server) newAuthorization(who caller) authorizationData {
	password, expires := s.issueToken(who)
	return authorizationData{
		AuthorizationToken: base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		ExpiresAt:          apiTime(expires),
	}
}

// repositoryID is how calls name a repository.
type repositoryID struct {
	RegistryID     string `json:"registryId"` // the caller's if empty
	RepositoryName string `json:"repositoryName"`
}

// decodeAPI answers a call that is not of the form of in, and tells whether it
// is.
func (x *exchange) decodeAPI(body []byte, in any) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields() // which this server would have to heed
	if err := dec.Decode(in); err != nil {
		x.failAPI("InvalidParameterException", err.Error())
		return false
	}
	return true
}

// readAPI answers a call that is not of the form of in, or that reachAPI
// answers, and tells whether it is neither.
func (s *Server) readAPI(x *exchange, body []byte, action string, in any, id *repositoryID) (*Server, *repository, bool) {
	if !x.decodeAPI(body, in) {
		return nil, nil, false
	}
	if id.RegistryID == "" {
		id.RegistryID = x.caller.account
	}
	return s.reachAPI(x, action, *id)
}

// reachAPI returns a repository for the caller to act on, and the registry
// that it is in. It answers that there is none, or that he may not.
func (s *Server) reachAPI(x *exchange, action string, id repositoryID) (*Server, *repository, bool) {
	if owner := s.aws.registry(id.RegistryID, s.opts.Region); owner != nil {
		repo, denied := owner.reach(x.caller, action, id.RepositoryName)
		switch {
		case denied != "":
			x.failAPI("AccessDeniedException", denied)
			return nil, nil, false
		case repo != nil:
			return owner, repo, true
		}
	}
	x.failAPI("RepositoryNotFoundException", noRepository(id.RepositoryName, id.RegistryID))
	return nil, nil, false
}

func noRepository(repo, account string) string {
	return fmt.Sprintf("The repository with name '%s' does not exist in the registry with id '%s'", repo, account)
}

// arnOf returns the ARN of a repository.
func arnOf(region, account, repo string) string {
	return "arn:" + partition(region) + ":ecr:" + region + ":" + account + ":repository/" + repo
}

// apiTime is a time in the protocol: seconds since the Unix epoch, to the
// millisecond.
func apiTime(t time.Time) float64 {
	return float64(t.UnixMilli()) / float64(time.Second/time.Millisecond)
}

// failAPI sends an error as the protocol has it. All that are sent from here
// are the caller's: status 400.
func (x *exchange) failAPI(kind, message string) {
	x.replyAPI(http.StatusBadRequest, apiError{kind, message})
}

// apiError is an error in AWS JSON 1.1.
type apiError struct {
	Type    string `json:"__type"`
	Message string `json:"message,omitempty"`
}

func (x *exchange) replyAPI(status int, v any) {
	x.replyJSON(status, "application/x-amz-json-1.1", v)
}
