package awsapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

// amzTime is the form of times in AWS's signatures.
const amzTime = "20060102T150405Z"

// Signature is the content of a Signature Version 4. The code itself is not checked.
type Signature struct {
	AccessKeyID, Region, Service string
	SessionToken                 string
	Date                         time.Time // zero if it cannot be read
}

// readSignature reads the signature of a request, or returns the error to answer.
func readSignature(r *http.Request) (Signature, *frontend.Error) {
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return Signature{}, &frontend.Error{
			Status: http.StatusBadRequest, Code: "MissingAuthenticationTokenException", Message: "Missing Authentication Token"}
	}
	// Credential=<key>/<date>/<region>/<service>/aws4_request
	var scope []string
	for field := range strings.SplitSeq(fields, ",") {
		if c, ok := strings.CutPrefix(strings.TrimSpace(field), "Credential="); ok {
			scope = strings.Split(c, "/")
		}
	}
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return Signature{}, &frontend.Error{
			Status: http.StatusBadRequest, Code: "IncompleteSignatureException",
			Message: "Credential must have exactly 5 slash-delimited elements."}
	}
	date, _ := time.Parse(amzTime, r.Header.Get("X-Amz-Date")) // a zero date is long ago
	return Signature{
		AccessKeyID: scope[0], Region: scope[2], Service: scope[3],
		SessionToken: r.Header.Get("X-Amz-Security-Token"), Date: date,
	}, nil
}
