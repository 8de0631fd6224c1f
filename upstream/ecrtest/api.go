package ecrtest

import (
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"time"
)

// apiTarget is what X-Amz-Target begins with, in the protocol AWS JSON 1.1.
const apiTarget = "AmazonEC2ContainerRegistry_V20150921."

// maxAPIRequest bounds the body of a call, in bytes.
const maxAPIRequest = 1 << 20

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	// net/http notices that a client leaves only once its request is read to the end.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIRequest))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.exchange(w, r, API, "", func(x *exchange) { s.callAPI(x, body) })
}

// callAPI answers a call of the ECR API with the request body.
func (s *Server) callAPI(x *exchange, body []byte) {
	operation, ok := strings.CutPrefix(x.r.Header.Get("X-Amz-Target"), apiTarget)
	switch {
	case x.r.Method != http.MethodPost || !ok:
		x.failAPI("UnknownOperationException", "")
	case !s.signedByUs(x):
	case operation == "GetAuthorizationToken":
		s.getAuthorizationToken(x)
	case operation == "GetLifecyclePolicy":
		s.getLifecyclePolicy(x, body)
	case operation == "DescribeImages":
		s.describeImages(x, body)
	default:
		x.failAPI("UnknownOperationException", "")
	}
}

// signedByUs answers a call that does not name the access key, service and
// region in a Signature Version 4, and tells whether it does. The signature
// itself is taken on trust.
func (s *Server) signedByUs(x *exchange) bool {
	fields, ok := strings.CutPrefix(x.r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		x.failAPI("MissingAuthenticationTokenException", "Missing Authentication Token")
		return false
	}
	// Credential=<key>/<date>/<region>/<service>/aws4_request
	var scope []string
	for field := range strings.SplitSeq(fields, ",") {
		if c, ok := strings.CutPrefix(strings.TrimSpace(field), "Credential="); ok {
			scope = strings.Split(c, "/")
		}
	}
	if len(scope) != 5 || scope[4] != "aws4_request" {
		x.failAPI("IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements.")
		return false
	}
	if scope[0] != s.opts.AccessKey {
		x.failAPI("UnrecognizedClientException", "The security token included in the request is invalid.")
		return false
	}
	if scope[2] != s.opts.Region || scope[3] != "ecr" {
		x.failAPI("InvalidSignatureException", "Credential should be scoped to a valid region and to service: 'ecr'.")
		return false
	}
	return true
}

func (s *Server) getAuthorizationToken(x *exchange) {
	type authorizationData struct {
		AuthorizationToken string  `json:"authorizationToken"`
		ExpiresAt          float64 `json:"expiresAt"` // seconds since the Unix epoch
		ProxyEndpoint      string  `json:"proxyEndpoint"`
	}
	password, expires := s.issueToken()
	x.replyAPI(http.StatusOK, struct {
		AuthorizationData []authorizationData `json:"authorizationData"`
	}{[]authorizationData{{
		AuthorizationToken: base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		ExpiresAt:          apiTime(expires),
		ProxyEndpoint:      "https://" + s.Host(),
	}}})
}

// apiTime is a time in the protocol: seconds since the Unix epoch, to the
// millisecond.
func apiTime(t time.Time) float64 {
	return float64(t.UnixMilli()) / float64(time.Second/time.Millisecond)
}

// failAPI sends an error as the protocol has it. All that are sent from here
// are the caller's: status 400.
func (x *exchange) failAPI(kind, message string) {
	x.replyAPI(http.StatusBadRequest, struct {
		Type    string `json:"__type"`
		Message string `json:"message,omitempty"`
	}{kind, message})
}

func (x *exchange) replyAPI(status int, v any) {
	x.replyJSON(status, "application/x-amz-json-1.1", v)
}
