package upstream

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// publicECR is a running fake of ECR Public.
type publicECR struct {
	*ecrtest.Running
	*Registry
	log   *upstreamtest.Log
	clock *ecrtest.Clock // of tokens that AWS's API gives
	blob  digest.Digest
}

// startPublic runs a fake of ECR Public without limits on pulls, and a registry
// that has these credentials.
func startPublic(t *testing.T, host string, key func(*ecrtest.AWS) ecrtest.Key) *publicECR {
	t.Helper()
	server := startAWS(t, ecrtest.Options{Public: true})
	server.SetPullLimit(0, 0, 0)
	blob, err := server.AddBlob(repo, ecrtest.Random(1, 1000))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"other/app", "third/app"} {
		if _, err := server.AddManifest(name, "v1", manifestType, []byte(manifestBody)); err != nil {
			t.Fatal(err)
		}
	}
	if key != nil {
		setenv(t, key(server.AWS()).Environment())
	}
	p := &publicECR{Running: server, log: new(upstreamtest.Log), clock: ecrtest.NewClock(), blob: blob.Digest}
	c := NewClient(Options{Log: p.log.Logger(), Now: p.clock.Now, Lookup: func(string) (Config, bool) {
		return Config{Host: host, Endpoint: server.Endpoint}, true // the API is the environment's
	}})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	p.Registry = registryOf(t, c, host)
	siteOf(p.Registry).throttle.pulls = nil // no waiting for the limits of the real one
	return p
}

// pullAll asks for all that a pull needs, of several repositories.
func (p *publicECR) pullAll(t *testing.T) {
	t.Helper()
	for _, name := range []string{repo, "other/app", "third/app"} {
		for _, head := range []bool{true, false} {
			if _, _, err := p.Manifest(t.Context(), name, "v1", head); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := p.BlobSize(t.Context(), repo, p.blob); err != nil {
		t.Fatal(err)
	}
	part, err := p.OpenBlob(t.Context(), repo, p.blob, Range{Len: 1000})
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, part.Body)
}

func (p *publicECR) wantAsked(t *testing.T, api, tokens int) {
	t.Helper()
	stats := p.Stats()
	if stats.Requests[ecrtest.API] != api || stats.Requests[ecrtest.Token] != tokens {
		t.Errorf("the API was asked %d times and the token service %d times, want %d and %d",
			stats.Requests[ecrtest.API], stats.Requests[ecrtest.Token], api, tokens)
	}
	if n := stats.Heads[ecrtest.Blob]; n != 0 {
		t.Errorf("%d HEAD of blobs, which ECR Public does not answer", n)
	}
}

// usual may do everything, nobody nothing.
func usual(*ecrtest.AWS) ecrtest.Key {
	return ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}
}

func nobody(aws *ecrtest.AWS) ecrtest.Key {
	return aws.AddUser("arn:aws:iam::123456789012:user/nobody", nil)
}

func TestECRPublicIsAskedWithTheCredentialsThereAre(t *testing.T) {
	for _, host := range []string{"public.ecr.aws", "ecr-public.aws.com"} {
		t.Run(host, func(t *testing.T) {
			p := startPublic(t, host, usual)
			p.SetPullLimit(0.0001, 0, 1) // for others
			p.pullAll(t)
			p.pullAll(t)
			p.wantAsked(t, 1, 1)
			call := ecrtest.Call{Principal: larderUser, Region: "us-east-1", Action: "ecr-public:GetAuthorizationToken"}
			if got := p.AWS().Calls(); got[call] != 1 {
				t.Errorf("calls: %v, want one %v", got, call)
			}
		})
	}
}

func TestECRPublicIsAskedAnonymouslyWithoutCredentials(t *testing.T) {
	p := startPublic(t, "public.ecr.aws", nil)
	p.pullAll(t)
	p.wantAsked(t, 0, 1)
	p.log.WantLines(t, "asked anonymously", 1)
}

func TestECRPublicIsAskedAnonymouslyIfItsAPIIsDenied(t *testing.T) {
	p := startPublic(t, "public.ecr.aws", nobody)
	p.pullAll(t)
	p.wantAsked(t, 1, 1)
	p.log.WantLines(t, "asked anonymously", 1)
	p.log.WantLines(t, "add to the policies of arn:aws:iam::123456789012:user/nobody", 1)

	// It is tried again from time to time, more and more rarely.
	for range 24 * 60 {
		p.clock.Advance(time.Minute)
		p.ExpireTokens()
		if _, _, err := p.Manifest(t.Context(), repo, "v1", true); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.Stats().Requests[ecrtest.API]; n < 20 || n > 35 {
		t.Errorf("the API was asked %d times in a day, want about once an hour", n)
	}
	p.log.WantLines(t, "asked anonymously", 1)
}

func TestExpiredTokensOfECRPublicAreRenewedOnce(t *testing.T) {
	for name, test := range map[string]struct {
		key         func(*ecrtest.AWS) ecrtest.Key
		api, tokens int
	}{
		"anonymous": {nil, 0, 1},
		"signed":    {usual, 1, 2}, // the first with the login that has expired as well
	} {
		t.Run(name, func(t *testing.T) {
			p := startPublic(t, "public.ecr.aws", test.key)
			p.pullAll(t)
			p.ExpireTokens()
			p.ResetStats()
			p.pullAll(t)
			p.wantAsked(t, test.api, test.tokens)
		})
	}
}

// A token service that does not take what the API gave, as with credentials that
// were revoked.
func TestECRPublicIsAskedAnonymouslyIfTheLoginIsRefused(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	var given, tried, bearer atomic.Int64
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:%d", given.Add(1)))
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			fmt.Fprintf(w, `{"authorizationData":{"authorizationToken":%q}}`, token)
		case r.URL.Path == "/token/" && r.Header.Get("Authorization") != "":
			tried.Add(1)
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`)
		case r.URL.Path == "/token/":
			fmt.Fprintf(w, `{"token":"anybody-%d"}`, bearer.Load())
		case r.Header.Get("Authorization") != fmt.Sprintf("Bearer anybody-%d", bearer.Load()):
			w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token/",service="public.ecr.aws",scope="aws"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			content(w, r)
		}
	})
	c, log := newTestClient(t, Config{Host: "public.ecr.aws", Endpoint: server.URL, ECR: ECRConfig{APIEndpoint: server.URL}})
	r := registryOf(t, c, "public.ecr.aws")
	for range 3 {
		if err := pull(t, r, "a"); err != nil {
			t.Fatal(err)
		}
		bearer.Add(1) // the token so far expires
	}
	if given.Load() != 2 || tried.Load() != 2 {
		t.Errorf("the API gave %d logins and %d were tried, want 2: the first and one in its place", given.Load(), tried.Load())
	}
	log.WantLines(t, "asked anonymously", 1)
}

func TestTokensOfECRPublicLiveForAnHour(t *testing.T) {
	p := startPublic(t, "public.ecr.aws", nil)
	p.pullAll(t)
	if left := time.Until(statusOf(p.Registry).TokenExpires); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the token is used for %v, want not quite an hour", left)
	}
}
