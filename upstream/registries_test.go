package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// public are public registries, with their challenges and the hosts that they
// redirect to for a blob.
var public = []struct {
	host, endpoint string
	repository     string
	challenge      string // none if empty
	token          string // the URL of the request for a token, without "https://"
	blob           string // the host that serves blobs
}{
	{
		host: "docker.io", endpoint: "https://registry-1.docker.io", repository: "library/busybox",
		challenge: `Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull"`,
		token:     "auth.docker.io/token?scope=repository%3Alibrary%2Fbusybox%3Apull&service=registry.docker.io",
		blob:      "production.cloudfront.docker.com",
	},
	{
		host: "ghcr.io", repository: "fluxcd/flux-cli",
		challenge: `Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:fluxcd/flux-cli:pull"`,
		token:     "ghcr.io/token?scope=repository%3Afluxcd%2Fflux-cli%3Apull&service=ghcr.io",
		blob:      "pkg-containers.githubusercontent.com",
	},
	{
		host: "quay.io", repository: "prometheus/prometheus",
		challenge: `Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:prometheus/prometheus:pull"`,
		token:     "quay.io/v2/auth?scope=repository%3Aprometheus%2Fprometheus%3Apull&service=quay.io",
		blob:      "cdn01.quay.io",
	},
	{
		host: "registry.gitlab.com", repository: "group/project/image",
		challenge: `Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",scope="repository:group/project/image:pull"`,
		token:     "gitlab.com/jwt/auth?scope=repository%3Agroup%2Fproject%2Fimage%3Apull&service=container_registry",
		blob:      "cdn.registry.gitlab-static.net",
	},
	{
		host: "registry.k8s.io", repository: "pause",
		blob: "europe-west1-docker.pkg.dev",
	},
	{
		host: "europe-docker.pkg.dev", repository: "project/repository/image",
		challenge: `Bearer realm="https://europe-docker.pkg.dev/v2/token",service="europe-docker.pkg.dev",scope="repository:project/repository/image:pull"`,
		token:     "europe-docker.pkg.dev/v2/token?scope=repository%3Aproject%2Frepository%2Fimage%3Apull&service=europe-docker.pkg.dev",
		blob:      "europe-docker.pkg.dev",
	},
	{
		host: "example.azurecr.io", repository: "app",
		challenge: `Bearer realm="https://example.azurecr.io/oauth2/token",service="example.azurecr.io",scope="repository:app:pull"`,
		token:     "example.azurecr.io/oauth2/token?scope=repository%3Aapp%3Apull&service=example.azurecr.io",
		blob:      "eusmanaged1.blob.core.windows.net",
	},
	{
		host: "harbor.example.com", repository: "team/app",
		challenge: `Bearer realm="https://harbor.example.com/service/token",service="harbor-registry",scope="repository:team/app:pull"`,
		token:     "harbor.example.com/service/token?scope=repository%3Ateam%2Fapp%3Apull&service=harbor-registry",
		blob:      "harbor.example.com",
	},
	{
		host: "public.ecr.aws", repository: "docker/library/busybox",
		challenge: `Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws"`,
		token:     "public.ecr.aws/token/?scope=aws&service=public.ecr.aws",
		blob:      "d5l0dvt14r5h8.cloudfront.net",
	},
}

func TestPullsFromPublicRegistriesWork(t *testing.T) {
	upstreamtest.SetAWS(t, "") // no credentials for ECR Public
	for _, test := range public {
		t.Run(test.host, func(t *testing.T) {
			c, _ := newTestClient(t, Config{Host: test.host, Endpoint: test.endpoint})
			r := registryOf(t, c, test.host)
			// All of these hosts are one server of this process.
			var mu sync.Mutex
			var asked []string
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.ProtoMajor != 1 { // over HTTP/2 ranges would share one connection
					t.Errorf("%s was asked by %s", req.Host, req.Proto)
				}
				mu.Lock()
				asked = append(asked, req.Host+req.URL.RequestURI())
				mu.Unlock()
				auth := req.Header.Get("Authorization")
				switch {
				case req.Host+req.URL.RequestURI() == test.token:
					_, _ = w.Write([]byte(`{"token":"good","expires_in":300}`))
				case req.Host == test.blob && strings.HasPrefix(req.URL.Path, "/storage/"):
					if auth != "" && req.Host != siteOf(r).endpoint.Host {
						t.Errorf("%s was sent Authorization", req.Host)
					}
					content(w, req)
				case req.Host != siteOf(r).endpoint.Host:
					http.NotFound(w, req)
				case test.challenge != "" && auth != "Bearer good":
					w.Header().Set("WWW-Authenticate", test.challenge)
					w.WriteHeader(http.StatusUnauthorized)
				default:
					http.Redirect(w, req, "https://"+test.blob+"/storage/x?signature=y", http.StatusTemporaryRedirect)
				}
			}))
			server.EnableHTTP2 = true // as most of them do
			server.StartTLS()
			t.Cleanup(server.Close)
			siteOf(r).transport.Proxy = nil
			siteOf(r).transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
			siteOf(r).transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
			}
			if err := pull(t, r, test.repository); err != nil {
				t.Fatal(err)
			}
			blob := siteOf(r).endpoint.Host + "/v2/" + test.repository + "/blobs/" + someBlob.String()
			want := []string{blob}
			if test.token != "" {
				want = append(want, test.token, blob)
			}
			want = append(want, test.blob+"/storage/x?signature=y")
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}
