package ecrtest

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"
)

const (
	publicHost   = "public.ecr.aws"
	publicRegion = "us-east-1" // where its API is, the only one
)

// ECR Public's limits in pulls per second, from the service quotas.
const (
	anonymousPulls = 1
	signedInPulls  = 10
	// pullBurst lets an index and the manifest in it come one after the other.
	pullBurst = 2
)

// SetPullLimit changes how many pulls ECR Public allows a second, anonymously
// and with credentials: 1 and 10 unless this says otherwise, 0 for any number. A
// pull is a GET of a manifest; burst is how many may come at once.
func (s *Server) SetPullLimit(anonymous, signedIn float64, burst int) {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.limits.anonymous, s.limits.signedIn = nil, nil
	if anonymous > 0 {
		s.limits.anonymous = newBucket(anonymous, burst)
	}
	if signedIn > 0 {
		s.limits.signedIn = newBucket(signedIn, burst)
	}
}

// callPublicAPI answers a call of ECR Public's API.
func (s *Server) callPublicAPI(x *exchange, c call) {
	switch {
	case !c.public || c.operation == "":
		x.failAPI("UnknownOperationException", "")
	case !s.admitCall(x, c, publicRegion, "ecr-public"):
	case c.operation != "GetAuthorizationToken":
		x.failAPI("UnknownOperationException", "")
	case x.permit("ecr-public:GetAuthorizationToken", "*") &&
		x.permit("sts:GetServiceBearerToken", "*"):
		x.replyAPI(http.StatusOK, struct {
			AuthorizationData authorizationData `json:"authorizationData"`
		}{s.newAuthorization(x.caller)})
	}
}

// isToken tells whether a path is ECR Public's token endpoint.
func isToken(path string) bool { return path == "/token/" || path == "/token" }

// serveToken gives a bearer token to anybody, and one that counts as signed in
// for the API's token as basic credentials.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.exchange(w, r, subject{op: Token}, func(x *exchange) {
		// Clients that ask for another scope than the challenge's are served too.
		if r.URL.Query().Get("service") != publicHost {
			x.fail(http.StatusBadRequest, "UNSUPPORTED", "Invalid parameter at 'service' failed to satisfy constraint")
			return
		}
		var who caller
		if r.Header.Get("Authorization") != "" {
			var err error
			if who, err = s.authorize(r); err != nil {
				s.refusePublic(x, err)
				return
			}
		}
		token, _ := s.issue(bearerToken, who, s.opts.BearerTTL)
		x.replyJSON(http.StatusOK, "application/json; charset=utf-8", map[string]string{"token": token})
	})
}

// admitPublic answers a request that has no good token, that is a HEAD of a
// blob, or one pull too many, and else says in x whose it is.
func (s *Server) admitPublic(x *exchange, op Op) bool {
	who, err := s.authorizePublic(x.r)
	if op == Blob && x.head() {
		err = errNoCredentials // whatever they are
	}
	if err != nil {
		s.refusePublic(x, err)
		return false
	}
	x.caller = who
	if op == Manifest && !x.head() && !s.limits.pull(who.arn == "", s.opts.Now()) {
		x.refuse(op, *throttled(op))
		return false
	}
	return true
}

// authorizePublic returns whose token a request has. The API's token is one
// too, as it came.
func (s *Server) authorizePublic(r *http.Request) (caller, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, errNoCredentials
	}
	if raw, err := base64.StdEncoding.DecodeString(token); err == nil {
		if password, ok := strings.CutPrefix(string(raw), "AWS:"); ok {
			return s.readToken(s.passwordKind(), password)
		}
	}
	return s.readToken(bearerToken, token)
}

func (s *Server) refusePublic(x *exchange, err error) {
	if !errors.Is(err, errNoCredentials) {
		x.fail(http.StatusBadRequest, "DENIED", "Your Authorization Token is invalid.")
		return
	}
	x.Header().Set("Www-Authenticate", `Bearer realm="`+scheme(x.r)+"://"+x.r.Host+`/token/",service="`+publicHost+`",scope="aws"`)
	x.fail(http.StatusUnauthorized, "UNAUTHORIZED", "Not Authorized")
}

// pull tells whether ECR Public's limits allow a pull.
func (l *limits) pull(anonymous bool, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.signedIn
	if anonymous {
		b = l.anonymous
	}
	if b == nil || b.take(now) {
		return true
	}
	l.exceeded++
	return false
}
