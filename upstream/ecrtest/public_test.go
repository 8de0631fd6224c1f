package ecrtest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// startPublic returns a running ECR Public with the manifest {} as team/app:v1, and a
// client without a token. A private registry shares its AWS.
func startPublic(t *testing.T, opts ecrtest.Options) (*ecrtest.Running, *client) {
	t.Helper()
	private, _ := start(t, ecrtest.Options{Now: opts.Now})
	opts.Public, opts.AWS = true, private.AWS()
	server, err := ecrtest.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, server)
	if _, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	return server, c
}

// bearer gets a bearer token. header is names and values in turn.
func bearer(t *testing.T, c *client, header ...string) string {
	t.Helper()
	a := c.get(c.server.Endpoint+"/token/?service=public.ecr.aws&scope=aws", header...)
	wantStatus(t, a, http.StatusOK)
	var out struct{ Token string }
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatal(err)
	}
	return out.Token
}

// publicToken gets a token from the API of ECR Public, in base64.
func publicToken(t *testing.T, server *ecrtest.Running, key ecrtest.Key) (string, time.Time, error) {
	t.Helper()
	out, err := ecrpublic.NewFromConfig(sdk(t, server, key.Environment())).GetAuthorizationToken(t.Context(), nil)
	if err != nil {
		return "", time.Time{}, err
	}
	return *out.AuthorizationData.AuthorizationToken, *out.AuthorizationData.ExpiresAt, nil
}

const publicManifest = "/v2/team/app/manifests/v1"

func TestPublicChallengesAndIssuesAnonymousTokens(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := startPublic(t, ecrtest.Options{Now: clock.Now})
	a := c.get(server.Endpoint + publicManifest)
	wantStatus(t, a, http.StatusUnauthorized)
	wantHeader(t, a, "Www-Authenticate", `Bearer realm="`+server.Endpoint+`/token/",service="public.ecr.aws",scope="aws"`)
	wantStatus(t, c.get(server.Endpoint+"/token/"), http.StatusBadRequest)

	authorization := "Bearer " + bearer(t, c)
	clock.Advance(time.Hour - time.Second)
	wantBody(t, c.get(server.Endpoint+publicManifest, "Authorization", authorization), "{}")
	clock.Advance(time.Second)
	a = c.get(server.Endpoint+publicManifest, "Authorization", authorization)
	wantStatus(t, a, http.StatusBadRequest)
	wantHeader(t, a, "Www-Authenticate", "")
	wantBody(t, a, errorBody("DENIED", "Your Authorization Token is invalid."))
	wantStatus(t, c.get(server.Endpoint+publicManifest, "Authorization", "Bearer none"), http.StatusBadRequest)

	a = c.get(server.Endpoint+"/v2/team/none/manifests/v1", "Authorization", "Bearer "+bearer(t, c))
	wantBody(t, a, errorBody("NAME_UNKNOWN", "The repository with name 'none' does not exist in the registry with id 'team'"))
}

func TestPublicAPIIssuesTokens(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := startPublic(t, ecrtest.Options{Now: clock.Now})
	token, expires, err := publicToken(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if want := clock.Now().Add(12 * time.Hour); !expires.Equal(want) {
		t.Errorf("expires at %v, want %v", expires, want)
	}
	wantBody(t, c.get(server.Endpoint+publicManifest, "Authorization", "Bearer "+token), "{}")
	wantBody(t, c.get(server.Endpoint+publicManifest, "Authorization", "Bearer "+bearer(t, c, "Authorization", "Basic "+token)), "{}")
	wantStatus(t, c.get(server.Endpoint+publicManifest, "Authorization", "Basic "+token), http.StatusUnauthorized)
	clock.Advance(12 * time.Hour)
	wantStatus(t, c.get(server.Endpoint+publicManifest, "Authorization", "Bearer "+token), http.StatusBadRequest)
	a := c.get(server.Endpoint+"/token/?service=public.ecr.aws&scope=aws", "Authorization", "Basic "+token)
	wantStatus(t, a, http.StatusBadRequest)
}

func TestPublicAPINeedsTwoPermissions(t *testing.T) {
	server, _ := startPublic(t, ecrtest.Options{})
	const token, service = "ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"
	for missing, actions := range map[string][]string{token: {service}, service: {token}, "": {token, service}} {
		_, _, err := publicToken(t, server, server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow(actions...)}))
		switch {
		case missing == "" && err != nil:
			t.Error(err)
		case missing != "":
			wantAPIError(t, err, "AccessDeniedException")
			if err != nil && !strings.Contains(err.Error(), missing) {
				t.Errorf("got %v, want an error that names %s", err, missing)
			}
		}
	}
}

func TestPrivateTokenIsNotValidAtPublic(t *testing.T) {
	server, c := startPublic(t, ecrtest.Options{})
	password := tokenOf(t, sdk(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment()))
	req := c.request(http.MethodGet, server.Endpoint+"/token/?service=public.ecr.aws&scope=aws")
	req.SetBasicAuth("AWS", password)
	wantStatus(t, c.do(req), http.StatusUnauthorized)
}

func TestPublicRefusesHeadOfBlobs(t *testing.T) {
	server, c := startPublic(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	authorization := "Bearer " + bearer(t, c)
	wantStatus(t, c.get(server.Endpoint+path, "Authorization", authorization), http.StatusTemporaryRedirect)
	a := c.do(c.request(http.MethodHead, server.Endpoint+path, "Authorization", authorization))
	wantStatus(t, a, http.StatusUnauthorized)
}

func TestPublicLimitsPulls(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := startPublic(t, ecrtest.Options{Now: clock.Now})
	token, _, err := publicToken(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		authorization string
		pause         time.Duration // after which one more pull is allowed
	}{
		"anonymous": {"Bearer " + bearer(t, c), time.Second},
		"signed in": {"Bearer " + token, time.Second / 10},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			for _, after := range []time.Duration{time.Minute, 0, 0, test.pause - time.Millisecond, time.Millisecond, 0} {
				clock.Advance(after)
				a := c.get(server.Endpoint+publicManifest, "Authorization", test.authorization)
				got = append(got, a.StatusCode)
				if a.StatusCode == http.StatusTooManyRequests {
					wantBody(t, a, rateExceeded)
				}
				head := c.do(c.request(http.MethodHead, server.Endpoint+publicManifest, "Authorization", test.authorization))
				wantStatus(t, head, http.StatusOK) // not a pull
			}
			if diff := cmp.Diff([]int{200, 200, 429, 429, 200, 429}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	server.SetPullLimit(0, 0, 0)
	for range 20 {
		wantStatus(t, c.get(server.Endpoint+publicManifest, "Authorization", "Bearer "+token), http.StatusOK)
	}
}

func TestGoContainerregistryPullsFromPublic(t *testing.T) {
	server, c := startPublic(t, ecrtest.Options{})
	server.SetPullLimit(0, 0, 0)
	added, err := server.AddImage("team/image", "v1", image())
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := publicToken(t, server, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(strings.TrimPrefix(server.Endpoint, "http://")+"/team/image:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	for _, auth := range []authn.Authenticator{authn.Anonymous, authn.FromConfig(authn.AuthConfig{Auth: token})} {
		opts := []remote.Option{
			remote.WithContext(limited(t)), remote.WithAuth(auth), remote.WithTransport(c.http.Transport),
		}
		if _, err := remote.Index(ref, opts...); err != nil {
			t.Fatal(err)
		}
		for _, want := range added.Blobs {
			layer, err := remote.Layer(ref.Context().Digest(want.Digest.String()), opts...)
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, layer, want.Size)
		}
	}
}
