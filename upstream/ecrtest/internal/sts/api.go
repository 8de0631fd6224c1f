package sts

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/awsapi"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
)

// Operations of STS.
const (
	assumeRole                = "AssumeRole"
	assumeRoleWithWebIdentity = "AssumeRoleWithWebIdentity"
	getCallerIdentity         = "GetCallerIdentity"
)

// Options describes an [API].
type Options struct {
	Front    *frontend.Frontend
	Accounts *iam.Accounts
	Verifier awsapi.Verifier
	Log      *awsapi.Log
	Region   string // logged for calls that are not signed
}

// API answers calls of STS, whatever region they are signed for. It may be used by
// several goroutines at once.
type API struct{ opts Options }

// New returns an API.
func New(opts Options) *API { return &API{opts} }

// Serve answers a call of STS.
func (a *API) Serve(w http.ResponseWriter, r *http.Request, c awsapi.Call) {
	of := frontend.Subject{Op: frontend.STS, Operation: c.Operation}
	a.opts.Front.Serve(w, r, of, fail, func(x *frontend.Exchange) { a.answer(x, c) })
}

func (a *API) answer(x *frontend.Exchange, c awsapi.Call) {
	if c.Operation == assumeRoleWithWebIdentity {
		a.opts.Log.Add(awsapi.Entry{Region: a.opts.Region, Action: "sts:" + c.Operation})
		a.assumeByWebIdentity(x, c.Form)
		return
	}
	caller, refused := a.opts.Verifier.Verify(c, c.Signature.Region, "sts")
	if refused != nil {
		fail(x, queryError(*refused))
		return
	}
	a.opts.Log.Add(awsapi.Entry{Principal: caller.ARN, Region: c.Signature.Region, Action: "sts:" + c.Operation})
	switch c.Operation {
	case getCallerIdentity: // which needs no permission
		reply(x, c.Operation, callerIdentity{caller.ARN, caller.ID, caller.Account})
	case assumeRole:
		a.assumeRole(x, caller, c.Form)
	default:
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "InvalidAction",
			Message: "Could not find operation " + c.Operation + " for version " + c.Form.Get("Version")})
	}
}

// queryError returns the error of a signature as the query protocol has it.
func queryError(e frontend.Error) frontend.Error {
	codes := map[string]string{
		"MissingAuthenticationTokenException": "MissingAuthenticationToken",
		"IncompleteSignatureException":        "IncompleteSignature",
		"UnrecognizedClientException":         "InvalidClientTokenId",
		"ExpiredTokenException":               "ExpiredToken",
		"InvalidSignatureException":           "SignatureDoesNotMatch",
	}
	return frontend.Error{Status: http.StatusForbidden, Code: codes[e.Code], Message: e.Message}
}

// sessionName is the grammar of RoleSessionName: API reference, AssumeRole.
var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// The shortest and the longest session.
const (
	minSession = 15 * time.Minute
	maxSession = 12 * time.Hour
)

// readSession returns the name and the duration of the session that a form asks for;
// the duration is 0 if the form does not say. It answers a form that is not valid; ok
// is then false.
func readSession(x *frontend.Exchange, form url.Values) (name string, d time.Duration, ok bool) {
	name = form.Get("RoleSessionName")
	if !sessionName.MatchString(name) {
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "ValidationError",
			Message: "Value '" + name + "' at 'roleSessionName' failed to satisfy constraint"})
		return "", 0, false
	}
	if text := form.Get("DurationSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		d = time.Duration(seconds) * time.Second
		if err != nil || d < minSession || d > maxSession {
			fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "ValidationError",
				Message: "Value '" + text + "' at 'durationSeconds' failed to satisfy constraint"})
			return "", 0, false
		}
	}
	return name, d, true
}

func (a *API) assumeRole(x *frontend.Exchange, caller iam.Principal, form url.Values) {
	name, d, ok := readSession(x, form)
	if !ok {
		return
	}
	arn := form.Get("RoleArn")
	role := a.opts.Accounts.Role(arn)
	if role == nil || !role.Admits(caller, form.Get("ExternalId")) {
		fail(x, frontend.Error{Status: http.StatusForbidden, Code: "AccessDenied",
			Message: "User: " + caller.ARN + " is not authorized to perform: " + iam.AssumeRole + " on resource: " + arn})
		return
	}
	a.begin(x, assumeRole, role, name, d)
}

func (a *API) assumeByWebIdentity(x *frontend.Exchange, form url.Values) {
	name, d, ok := readSession(x, form)
	if !ok {
		return
	}
	role := a.opts.Accounts.Role(form.Get("RoleArn"))
	if role == nil || role.WebIdentity == "" {
		fail(x, frontend.Error{Status: http.StatusForbidden, Code: "AccessDenied",
			Message: "Not authorized to perform sts:AssumeRoleWithWebIdentity"})
		return
	}
	if form.Get("WebIdentityToken") != role.WebIdentity {
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "InvalidIdentityToken",
			Message: "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"})
		return
	}
	a.begin(x, assumeRoleWithWebIdentity, role, name, d)
}

// begin begins a session and sends its credentials.
func (a *API) begin(x *frontend.Exchange, operation string, role *iam.Role, name string, d time.Duration) {
	k, session := a.opts.Accounts.Begin(role, name, d)
	var out assumedRole
	out.Credentials.AccessKeyID = k.AccessKeyID
	out.Credentials.SecretAccessKey = k.SecretAccessKey
	out.Credentials.SessionToken = k.SessionToken
	out.Credentials.Expiration = k.Expires.UTC().Format(time.RFC3339)
	out.AssumedRoleUser.AssumedRoleID, out.AssumedRoleUser.ARN = session.ID, session.ARN
	reply(x, operation, out)
}
