package awsapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
)

// Verifier says who signed a call. It does not change and may be used by several
// goroutines at once.
type Verifier struct {
	Accounts *iam.Accounts
	Now      func() time.Time
	MaxSkew  time.Duration // between the date of the signature and the clock; 0 for any
}

// Verify returns the principal that signed a call of a service in a region, or the
// error to answer, in the codes of AWS JSON 1.1.
func (v Verifier) Verify(c Call, region, service string) (iam.Principal, *frontend.Error) {
	if c.unsigned != nil {
		return iam.Principal{}, c.unsigned
	}
	refuse := func(code, message string) (iam.Principal, *frontend.Error) {
		return iam.Principal{}, &frontend.Error{Status: http.StatusBadRequest, Code: code, Message: message}
	}
	sig := c.Signature
	arn, err := v.Accounts.Authenticate(sig.AccessKeyID, sig.SessionToken)
	switch {
	case errors.Is(err, iam.ErrExpiredKey):
		return refuse("ExpiredTokenException", "The security token included in the request is expired")
	case err != nil:
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case sig.Region != region || sig.Service != service:
		return refuse("InvalidSignatureException",
			"Credential should be scoped to a valid region and to service: '"+service+"'.")
	}
	now := v.Now()
	if v.MaxSkew > 0 && now.Sub(sig.Date).Abs() > v.MaxSkew {
		return refuse("InvalidSignatureException",
			"Signature expired: "+sig.Date.Format(amzTime)+" is now earlier than "+now.Add(-v.MaxSkew).UTC().Format(amzTime)+
				" ("+now.UTC().Format(amzTime)+" - "+v.MaxSkew.String()+")")
	}
	return v.Accounts.Principal(arn), nil
}
