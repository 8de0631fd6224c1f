package awsapi

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

// The beginning of X-Amz-Target in the protocol AWS JSON 1.1.
const (
	privateTarget = "AmazonEC2ContainerRegistry_V20150921."
	publicTarget  = "SpencerFrontendService."
)

// formType is the Content-Type of the AWS query protocol, which STS uses.
const formType = "application/x-www-form-urlencoded"

// maxBody limits the body of a call, in bytes.
const maxBody = 1 << 20

// Call is a call of an AWS API.
type Call struct {
	STS       bool   // it is of STS; otherwise of ECR
	Public    bool   // it is of ECR Public's API
	Operation string // such as GetAuthorizationToken; empty if the request names none
	Signature Signature
	Body      []byte
	Form      url.Values // the parameters, for STS

	unsigned *frontend.Error // why there is no signature, or nil
}

// ReadCall reads a call, whoever signed it. It panics with [http.ErrAbortHandler] if
// the client leaves meanwhile.
func ReadCall(w http.ResponseWriter, r *http.Request) Call {
	// net/http notices that a client leaves only once its request is read to the end.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c := Call{Body: body}
	c.Signature, c.unsigned = readSignature(r)
	if strings.HasPrefix(r.Header.Get("Content-Type"), formType) {
		c.STS = true
		if form, err := url.ParseQuery(string(body)); err == nil {
			c.Form, c.Operation = form, form.Get("Action")
		}
		return c
	}
	target := r.Header.Get("X-Amz-Target")
	operation, ok := strings.CutPrefix(target, privateTarget)
	if !ok {
		operation, c.Public = strings.CutPrefix(target, publicTarget)
	}
	if (ok || c.Public) && r.Method == http.MethodPost {
		c.Operation = operation
	}
	return c
}
