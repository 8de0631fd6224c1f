package ecrtest

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// signature is what a request says in a Signature Version 4.
type signature struct {
	accessKey, region, service string
	session                    string // the security token
	date                       time.Time
}

// refusal is an error of an API of AWS's.
type refusal struct {
	status        int
	code, message string
}

// readSignature reads the signature of a request. The signature itself is
// taken on trust.
func readSignature(r *http.Request) (signature, *refusal) {
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return signature{}, &refusal{http.StatusBadRequest, "MissingAuthenticationTokenException", "Missing Authentication Token"}
	}
	// Credential=<key>/<date>/<region>/<service>/aws4_request
	var scope []string
	for field := range strings.SplitSeq(fields, ",") {
		if c, ok := strings.CutPrefix(strings.TrimSpace(field), "Credential="); ok {
			scope = strings.Split(c, "/")
		}
	}
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return signature{}, &refusal{http.StatusBadRequest, "IncompleteSignatureException",
			"Credential must have exactly 5 slash-delimited elements."}
	}
	date, _ := time.Parse(amzTime, r.Header.Get("X-Amz-Date")) // zero, which is long ago
	return signature{
		accessKey: scope[0], region: scope[2], service: scope[3],
		session: r.Header.Get("X-Amz-Security-Token"), date: date,
	}, nil
}

// authenticate returns who signed a request to one of services, in region.
func (s *Server) authenticate(sig signature, region string, services ...string) (caller, *refusal) {
	a := s.aws
	a.mu.RLock()
	k, ok := a.keys[sig.accessKey]
	a.mu.RUnlock()
	now := s.opts.Now()
	switch {
	case !ok || k.session != sig.session:
		return caller{}, &refusal{http.StatusBadRequest, "UnrecognizedClientException",
			"The security token included in the request is invalid."}
	case !k.expires.IsZero() && !now.Before(k.expires):
		return caller{}, &refusal{http.StatusBadRequest, "ExpiredTokenException",
			"The security token included in the request is expired"}
	case sig.region != region || !slices.Contains(services, sig.service):
		return caller{}, &refusal{http.StatusBadRequest, "InvalidSignatureException",
			"Credential should be scoped to a valid region and to service: '" + services[0] + "'."}
	}
	if skew := s.opts.MaxSkew; skew > 0 && now.Sub(sig.date).Abs() > skew {
		return caller{}, &refusal{http.StatusBadRequest, "InvalidSignatureException",
			"Signature expired: " + sig.date.Format(amzTime) + " is now earlier than " + now.Add(-skew).UTC().Format(amzTime) +
				" (" + now.UTC().Format(amzTime) + " - " + skew.String() + ")"}
	}
	return a.caller(k.arn), nil
}
