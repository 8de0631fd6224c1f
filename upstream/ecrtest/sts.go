package ecrtest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// formType is the Content-Type of the AWS query protocol, which STS speaks.
const formType = "application/x-www-form-urlencoded"

// stsNamespace is that of STS's documents.
const stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"

// stsOperation returns which operation a form asks for, or "".
func stsOperation(body []byte) string {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return ""
	}
	return form.Get("Action")
}

// Operations of STS.
const (
	assumeRole                = "AssumeRole"
	assumeRoleWithWebIdentity = "AssumeRoleWithWebIdentity"
	getCallerIdentity         = "GetCallerIdentity"
)

// callSTS answers a call of STS, of any region.
func (s *Server) callSTS(x *exchange, c call) {
	form, _ := url.ParseQuery(string(c.body)) // where that failed there is no operation
	if c.operation == assumeRoleWithWebIdentity {
		s.aws.count(Call{Region: s.opts.Region, Action: "sts:" + c.operation})
		s.assumeByWebIdentity(x, form)
		return
	}
	refused := c.refused
	if refused == nil {
		x.caller, refused = s.authenticate(c.sig, c.sig.region, "sts")
	}
	if refused != nil {
		x.failSTS(stsRefusal(*refused))
		return
	}
	s.aws.count(Call{Principal: x.caller.arn, Region: c.sig.region, Action: "sts:" + c.operation})
	switch c.operation {
	case getCallerIdentity: // which needs no permission
		x.replySTS(c.operation, callerIdentity{x.caller.arn, x.caller.id, x.caller.account})
	case assumeRole:
		s.assumeRole(x, form)
	default:
		x.failSTS(refusal{http.StatusBadRequest, "InvalidAction",
			"Could not find operation " + c.operation + " for version " + form.Get("Version")})
	}
}

// stsRefusal puts a signature's refusal as the query protocol has it.
func stsRefusal(r refusal) refusal {
	codes := map[string]string{
		"MissingAuthenticationTokenException": "MissingAuthenticationToken",
		"IncompleteSignatureException":        "IncompleteSignature",
		"UnrecognizedClientException":         "InvalidClientTokenId",
		"ExpiredTokenException":               "ExpiredToken",
		"InvalidSignatureException":           "SignatureDoesNotMatch",
	}
	return refusal{http.StatusForbidden, codes[r.code], r.message}
}

// sessionName is the grammar of RoleSessionName: API reference, AssumeRole.
var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// Bounds of how long a session may last.
const (
	minSession = 15 * time.Minute
	maxSession = 12 * time.Hour
)

// readSession answers a form whose session's name or duration are not valid,
// and tells whether they are.
func (x *exchange) readSession(form url.Values) (name string, d time.Duration, ok bool) {
	name = form.Get("RoleSessionName")
	if !sessionName.MatchString(name) {
		x.failSTS(refusal{http.StatusBadRequest, "ValidationError",
			"Value '" + name + "' at 'roleSessionName' failed to satisfy constraint"})
		return "", 0, false
	}
	if text := form.Get("DurationSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		d = time.Duration(seconds) * time.Second
		if err != nil || d < minSession || d > maxSession {
			x.failSTS(refusal{http.StatusBadRequest, "ValidationError",
				"Value '" + text + "' at 'durationSeconds' failed to satisfy constraint"})
			return "", 0, false
		}
	}
	return name, d, true
}

func (s *Server) assumeRole(x *exchange, form url.Values) {
	name, d, ok := x.readSession(form)
	if !ok {
		return
	}
	arn := form.Get("RoleArn")
	role := s.aws.role(arn)
	if role == nil || !role.admits(x.caller) || role.ExternalID != "" && role.ExternalID != form.Get("ExternalId") {
		x.failSTS(refusal{http.StatusForbidden, "AccessDenied",
			"User: " + x.caller.arn + " is not authorized to perform: sts:AssumeRole on resource: " + arn})
		return
	}
	s.replySession(x, assumeRole, role, name, d)
}

// admits tells whether a caller may assume the role. Who is not trusted may
// not, whatever his own policy says, even within the account.
func (r *Role) admits(who caller) bool {
	const action = "sts:" + assumeRole
	trusted, _ := who.among(r.Trusts)
	return trusted && judge(who, action, r.ARN, accountOf(r.ARN), Policy{Allow(action).To(r.Trusts...)}) == ""
}

func (s *Server) assumeByWebIdentity(x *exchange, form url.Values) {
	name, d, ok := x.readSession(form)
	if !ok {
		return
	}
	role := s.aws.role(form.Get("RoleArn"))
	if role == nil || role.WebIdentity == "" {
		x.failSTS(refusal{http.StatusForbidden, "AccessDenied",
			"Not authorized to perform sts:AssumeRoleWithWebIdentity"})
		return
	}
	if form.Get("WebIdentityToken") != role.WebIdentity {
		x.failSTS(refusal{http.StatusBadRequest, "InvalidIdentityToken",
			"The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"})
		return
	}
	s.replySession(x, assumeRoleWithWebIdentity, role, name, d)
}

func (s *Server) replySession(x *exchange, operation string, r *Role, name string, d time.Duration) {
	k, who := s.aws.begin(r, name, d)
	var out assumedRole
	out.Credentials.AccessKeyID = k.AccessKeyID
	out.Credentials.SecretAccessKey = k.SecretAccessKey
	out.Credentials.SessionToken = k.SessionToken
	out.Credentials.Expiration = k.Expires.UTC().Format(time.RFC3339)
	out.AssumedRoleUser.AssumedRoleID, out.AssumedRoleUser.ARN = who.id, who.arn
	x.replySTS(operation, out)
}

type callerIdentity struct {
	ARN     string `xml:"Arn"`
	UserID  string `xml:"UserId"`
	Account string
}

type assumedRole struct {
	Credentials struct {
		AccessKeyID     string `xml:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string
	}
	AssumedRoleUser struct {
		AssumedRoleID string `xml:"AssumedRoleId"`
		ARN           string `xml:"Arn"`
	}
}

// replySTS sends the result of an operation.
func (x *exchange) replySTS(operation string, result any) {
	var body bytes.Buffer
	fmt.Fprintf(&body, `<%sResponse xmlns="%s">`, operation, stsNamespace)
	if err := xml.NewEncoder(&body).EncodeElement(result, xml.StartElement{Name: xml.Name{Local: operation + "Result"}}); err != nil {
		panic("ecrtest: encoding an answer: " + err.Error())
	}
	fmt.Fprintf(&body, `<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>`, uuid.NewString(), operation)
	x.reply(http.StatusOK, "text/xml", body.Bytes())
}

// failSTS sends an error as the query protocol has it.
func (x *exchange) failSTS(r refusal) {
	type detail struct {
		Type    string
		Code    string
		Message string
	}
	kind := "Sender"
	if r.status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	body, err := xml.Marshal(struct {
		XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Error     detail
		RequestID string `xml:"RequestId"`
	}{Error: detail{kind, r.code, r.message}, RequestID: uuid.NewString()})
	if err != nil {
		panic("ecrtest: encoding an error: " + err.Error())
	}
	x.reply(r.status, "text/xml", body)
}
