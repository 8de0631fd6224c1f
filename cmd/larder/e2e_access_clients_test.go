package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// A loginClient is a program that pulls with a login of its own.
type loginClient struct {
	name string
	root bool // whether it needs that
	// start prepares the client, and returns what pulls an image of a repository.
	start func(t *testing.T, g *guardedStack) func(t *testing.T, repository string, l login) error
	// identity is whether the client has identity tokens.
	identity bool
}

// loginClients are those whose users have a login for Larder itself: for its address, or for a registry's name below it.
func loginClients() []loginClient {
	return []loginClient{
		{"crane", false, func(t *testing.T, g *guardedStack) func(*testing.T, string, login) error {
			crane := deploytest.Require(t, "crane")
			return func(t *testing.T, repository string, l login) error {
				env := environ(t, "DOCKER_CONFIG="+l.authFile(t, g.listen))
				_, err := tryRun(t, env, crane, "pull", "--insecure", g.listen+"/"+guardedName+"/"+repository+":1.0", filepath.Join(t.TempDir(), "image.tar"))
				return err
			}
		}, true},
		{"oras", false, func(t *testing.T, g *guardedStack) func(*testing.T, string, login) error {
			oras := deploytest.Require(t, "oras")
			return func(t *testing.T, repository string, l login) error {
				_, err := tryRun(t, environ(t), oras, "copy", "--from-registry-config", filepath.Join(l.authFile(t, g.listen), "config.json"),
					"--from-plain-http", "--to-oci-layout", g.listen+"/"+guardedName+"/"+repository+":1.0", t.TempDir()+":1.0")
				return err
			}
		}, true},
		{"skopeo", false, func(t *testing.T, g *guardedStack) func(*testing.T, string, login) error {
			skopeo := deploytest.Require(t, "skopeo")
			conf := g.noFallbackConf(t)
			return func(t *testing.T, repository string, l login) error {
				_, err := tryRun(t, environ(t), skopeo, "--registries-conf", conf, "--policy", signaturePolicy(t),
					"copy", "--src-authfile", filepath.Join(l.authFile(t, g.listen+"/"+guardedName), "config.json"),
					"docker://"+guardedName+"/"+repository+":1.0", "dir:"+t.TempDir())
				return err
			}
		}, true},
		{"podman", true, func(t *testing.T, g *guardedStack) func(*testing.T, string, login) error {
			podman := deploytest.Require(t, "podman")
			env, global := podmanStorage(t)
			env = append(env, "CONTAINERS_REGISTRIES_CONF="+g.noFallbackConf(t))
			return func(t *testing.T, repository string, l login) error {
				_, err := tryRun(t, env, podman, append(global, "pull", "--quiet", "--signature-policy", signaturePolicy(t),
					"--authfile", filepath.Join(l.authFile(t, g.listen+"/"+guardedName), "config.json"), guardedName+"/"+repository+":1.0")...)
				return err
			}
		}, true},
		{"docker", true, func(t *testing.T, g *guardedStack) func(*testing.T, string, login) error {
			docker := deploytest.Require(t, "docker")
			deploytest.Require(t, "dockerd")
			socket := startBareDocker(t)
			return func(t *testing.T, repository string, l login) error {
				_, err := tryRun(t, environ(t), docker, "--config", l.authFile(t, g.listen), "--host", socket,
					"pull", "--quiet", g.listen+"/"+guardedName+"/"+repository+":1.0")
				return err
			}
		}, true},
		{"docker build", true, func(t *testing.T, g *guardedStack) func(*testing.T, string, login) error {
			docker := deploytest.Require(t, "docker")
			deploytest.Require(t, "dockerd")
			if _, err := tryRun(t, environ(t, "DOCKER_BUILDKIT=1"), docker, "build", "--help"); err != nil {
				deploytest.Miss(t, "buildkit", "docker is installed without buildx, and has no BuildKit of its own")
			}
			socket := startBareDocker(t)
			return func(t *testing.T, repository string, l login) error {
				dir := t.TempDir()
				writeFile(t, filepath.Join(dir, "Dockerfile"), "FROM "+g.listen+"/"+guardedName+"/"+repository+":1.0\nCOPY Dockerfile /\n")
				_, err := tryRun(t, environ(t, "DOCKER_BUILDKIT=1"), docker, "--config", l.authFile(t, g.listen), "--host", socket,
					"build", "--progress", "plain", "--no-cache", "--pull", dir)
				return err
			}
		}, true},
	}
}

// noFallbackConf has podman and skopeo ask Larder alone.
func (g *guardedStack) noFallbackConf(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.conf")
	writeFile(t, path, fmt.Sprintf("unqualified-search-registries = []\n[[registry]]\nprefix = %q\nlocation = \"%s/%s\"\ninsecure = true\n",
		guardedName, g.listen, guardedName))
	return path
}

func TestLoginsOfClientsDecideWhatTheyGet(t *testing.T) {
	t.Parallel()
	for _, c := range loginClients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.root {
				requireRoot(t, strings.Fields(c.name)[0])
			}
			for scheme, basic := range schemes() {
				if basic && c.root {
					continue // clients that are quicker to start show that Larder logs in so too
				}
				t.Run(scheme, func(t *testing.T) {
					t.Parallel()
					g := startGuarded(t, basic, guardedHost)
					pull := c.start(t, g)
					cases := accessCases()
					if c.identity && !basic {
						cases = append(cases, identityCase())
					}
					for _, one := range cases {
						t.Run(one.name, func(t *testing.T) {
							err := pull(t, one.repository, one.login)
							switch {
							case one.ok && err != nil:
								t.Error(err)
							case !one.ok && err == nil:
								t.Error("it is pulled")
							case !one.ok && !saysDenied(err):
								t.Errorf("the client does not say that it may not pull: %v", err)
							}
						})
					}
				})
			}
		})
	}
}

// podman and skopeo go to the registry itself if Larder refuses the login for it, or has none.
func TestPodmanAndSkopeoFallBackToTheRegistry(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"skopeo", "podman"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			path := deploytest.Require(t, program)
			requireRoot(t, program)
			g := startGuarded(t, false, guardedHost)
			conf := filepath.Join(t.TempDir(), "registries.conf")
			writeFile(t, conf, fmt.Sprintf(`unqualified-search-registries = []
[[registry]]
prefix = %q
location = %q
insecure = true
[[registry.mirror]]
location = "%s/%s"
insecure = true
`, guardedName, g.registry.Host, g.listen, guardedName))
			right, wrong := login{user: "alice", password: alicePassword}, login{user: "alice", password: "wrong"}
			for _, one := range []struct {
				name        string
				mirror, own login
				ok, direct  bool
			}{
				{"right for Larder, none for the registry", right, login{}, true, false},
				{"wrong for Larder, right for the registry", wrong, right, true, true},
				{"none for Larder, right for the registry", login{}, right, true, true},
				{"wrong for both", wrong, wrong, false, true},
			} {
				t.Run(one.name, func(t *testing.T) {
					auth := authFile(t, map[string]login{g.listen + "/" + guardedName: one.mirror, g.registry.Host: one.own})
					image := guardedName + "/team/private:1.0"
					env := environ(t, "CONTAINERS_REGISTRIES_CONF="+conf, "REGISTRY_AUTH_FILE="+filepath.Join(auth, "config.json"))
					args := []string{"--registries-conf", conf, "--policy", signaturePolicy(t), "copy", "docker://" + image, "dir:" + t.TempDir()}
					if program == "podman" {
						_, global := podmanStorage(t)
						args = append(global, "pull", "--quiet", "--signature-policy", signaturePolicy(t), image)
					}
					before := g.registry.Direct()
					_, err := tryRun(t, env, path, args...)
					if one.ok != (err == nil) {
						t.Errorf("the pull works: %v, want %v: %v", err == nil, one.ok, err)
					}
					if n := g.registry.Direct() - before; one.direct != (n > 0) {
						t.Errorf("the registry itself was asked %d times", n)
					}
				})
			}
		})
	}
}

// saysDenied reports whether a client tells its user that the registry refuses the login.
func saysDenied(err error) bool {
	text := strings.ToLower(err.Error())
	for _, word := range []string{"denied", "unauthorized", "authentication required", "forbidden", "invalid username/password"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
