package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// clientsUpstream is how Larder calls the registry of these tests: names of images have no ports.
const clientsUpstream = "registry.example"

// Each client does its work on the registry itself, and then through Larder. What works without Larder works through it.
func TestRealClientsDoThroughLarderWhatTheyDoWithoutIt(t *testing.T) {
	t.Parallel()
	origin := startDistribution(t)
	clients := realClients(t, origin)
	for _, kind := range []struct {
		name    string
		front   func(http.Handler) http.Handler
		allWork bool // without Larder
		noneDo  bool // with and without Larder
	}{
		{name: "distribution", front: func(registry http.Handler) http.Handler { return registry }, allWork: true},
		{name: "login page for every request", front: loginPage(""), noneDo: true},
		{name: "login page for referrers", front: loginPage("/referrers/"), allWork: true},
		{name: "throttled", front: throttled},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range clients {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					// Fronts and a Larder for this client alone: the requests of others are not counted in its throttling.
					registry, upstream := startFront(t, kind.front(origin.proxy(t))), startFront(t, kind.front(origin.proxy(t)))
					s := newStack(t, fmt.Sprintf("upstreams: [{host: %s, endpoint: %q}]\n", clientsUpstream, "http://"+upstream))
					s.startLarder(t)
					direct := c.use(t, registry)
					through := c.use(t, s.listen+"/"+clientsUpstream)
					switch {
					case kind.allWork && direct != nil:
						t.Errorf("without Larder: %v", direct)
					case direct == nil && through != nil:
						t.Errorf("it works without Larder, and not through it: %v", through)
					case kind.noneDo && through == nil:
						t.Error("it works through Larder, though the registry serves nothing")
					}
				})
			}
		})
	}
}

// A realClient is a program that pulls.
type realClient struct {
	name string
	// use does what the client is made for with the content of a registry. The prefix is before the repository in the
	// names of images.
	use func(t *testing.T, prefix string) error
}

// realClients puts content into a registry and returns the clients that can use it. Clients that are not installed are
// left out, unless LARDER_REQUIRE names them.
func realClients(t *testing.T, registry *distributionRegistry) []realClient {
	t.Helper()
	image := registry.pushImage(t, "team/app")
	key := registry.sign(t, image)
	registry.pushChart(t)
	var clients []realClient
	add := func(name string, use func(t *testing.T, prefix string) error) {
		if _, err := exec.LookPath(name); err != nil {
			t.Run(name, func(t *testing.T) { deploytest.Require(t, name) })
			return
		}
		clients = append(clients, realClient{name, use})
	}
	run := func(t *testing.T, name string, args ...string) error {
		_, err := tryRun(t, environ(t), name, args...)
		return err
	}
	add("crane", func(t *testing.T, prefix string) error {
		return run(t, "crane", "pull", "--insecure", prefix+"/team/app:1.0", filepath.Join(t.TempDir(), "image.tar"))
	})
	add("skopeo", func(t *testing.T, prefix string) error {
		return run(t, "skopeo", "--policy", signaturePolicy(t), "copy", "--src-tls-verify=false",
			"docker://"+prefix+"/team/app:1.0", "dir:"+t.TempDir())
	})
	add("oras", func(t *testing.T, prefix string) error {
		return run(t, "oras", "copy", "--from-plain-http", "--recursive", "--to-oci-layout", prefix+"/team/app:1.0", t.TempDir()+":1.0")
	})
	add("helm", func(t *testing.T, prefix string) error {
		return run(t, "helm", "pull", "--plain-http", "--destination", t.TempDir(), "oci://"+prefix+"/team/chart", "--version", "1.2.3")
	})
	add("cosign", func(t *testing.T, prefix string) error {
		return run(t, "cosign", "verify", "--key", key, "--insecure-ignore-tlog", "--allow-http-registry", prefix+"/team/app:1.0")
	})
	add("podman", func(t *testing.T, prefix string) error {
		dir := podmanDir(t)
		return run(t, "podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "runroot"), "--tmpdir", filepath.Join(dir, "tmp"),
			"--storage-driver", "vfs", "pull", "--quiet", "--tls-verify=false", "--signature-policy", signaturePolicy(t), prefix+"/team/app:1.0")
	})
	if hasRoot() {
		add("ctr", func(t *testing.T, prefix string) error {
			c := startEmptyContainerd(t)
			_, err := tryRun(t, c.env, c.ctr, "--address", c.address, "images", "pull", "--plain-http", "--snapshotter", snapshotter, prefix+"/team/app:1.0")
			return err
		})
		add("docker", func(t *testing.T, prefix string) error {
			socket := startBareDocker(t)
			return run(t, "docker", "--host", socket, "pull", "--quiet", prefix+"/team/app:1.0")
		})
		add("dockerd2", func(t *testing.T, prefix string) error {
			return run(t, "docker", "--host", startCurrentDocker(t, noDockerConfig(t)), "pull", "--quiet", prefix+"/team/app:1.0")
		})
	}
	return clients
}

// loginPage answers requests whose path contains a text with a web page, as portals do.
func loginPage(part string) func(http.Handler) http.Handler {
	return func(registry http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, part) {
				registry.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!DOCTYPE html><title>Log in</title>")
		})
	}
}

// throttled refuses every second request.
func throttled(registry http.Handler) http.Handler {
	var requests atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%2 == 0 {
			http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"rate exceeded"}]}`, http.StatusTooManyRequests)
			return
		}
		registry.ServeHTTP(w, r)
	})
}

// startFront serves a handler on loopback until the test ends, and returns its host:port.
func startFront(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// A distributionRegistry is the registry that most others are made from, as a process.
type distributionRegistry struct {
	host string
}

func startDistribution(t *testing.T) *distributionRegistry {
	t.Helper()
	dir := t.TempDir()
	r := &distributionRegistry{host: deploytest.FreeAddress(t)}
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %s, secret: test}
`, filepath.Join(dir, "content"), r.host))
	cmd := exec.Command(deploytest.Require(t, "registry"), "serve", config)
	cmd.Env = environ(t, "OTEL_TRACES_EXPORTER=none")
	client := &http.Client{Transport: transport(t)}
	start(t, cmd).await(t, func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return r
}

// proxy passes requests on to the registry. Links of the registry name the host that the client asked.
func (r *distributionRegistry) proxy(t *testing.T) http.Handler {
	t.Helper()
	return &httputil.ReverseProxy{
		Transport: transport(t),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: r.host})
			p.Out.Host = p.In.Host
		},
	}
}

// pushImage pushes an image with the tag 1.0, and returns its name with its digest.
func (r *distributionRegistry) pushImage(t *testing.T, repository string) string {
	t.Helper()
	image := randomImage(t)
	writeImage(t, r.host+"/"+repository+":1.0", image)
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return r.host + "/" + repository + "@" + digest.String()
}

// sign signs an image with a new key, and returns the file of the public key. Without cosign it does nothing.
func (r *distributionRegistry) sign(t *testing.T, image string) (publicKey string) {
	t.Helper()
	if _, err := exec.LookPath("cosign"); err != nil {
		return ""
	}
	prefix := filepath.Join(t.TempDir(), "key")
	env := environ(t, "COSIGN_PASSWORD=test")
	output(t, env, "cosign", "generate-key-pair", "--output-key-prefix", prefix)
	output(t, env, "cosign", "sign", "--key", prefix+".key", "--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--yes", image)
	return prefix + ".pub"
}

// pushChart pushes a chart with the version 1.2.3. Without helm it does nothing.
func (r *distributionRegistry) pushChart(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("helm"); err != nil {
		return
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "chart", "Chart.yaml"), "apiVersion: v2\nname: chart\nversion: 1.2.3\n")
	output(t, environ(t), "helm", "package", "--destination", dir, filepath.Join(dir, "chart"))
	output(t, environ(t), "helm", "push", "--plain-http", filepath.Join(dir, "chart-1.2.3.tgz"), "oci://"+r.host+"/team")
}
