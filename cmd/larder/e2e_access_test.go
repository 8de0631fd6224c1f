package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/upstream/privatetest"
)

// guardedName is how Larder calls the registry of these tests for clients that name it in the path.
const guardedName = "private.example"

// The secrets of the users of these tests.
const (
	alicePassword = "alice's password"
	bobPassword   = "bob's password"
	aliceToken    = "alice's identity token"
)

// A guardedStack is a Larder in front of a registry where the clients' own rights decide. Everybody may pull
// team/public, alice may pull team/private, and bob may pull neither.
type guardedStack struct {
	*stack
	registry *privatetest.Registry
}

// startGuarded starts both. The host is that of the registry for Larder.
func startGuarded(t *testing.T, basic bool, host func(*privatetest.Registry) string) *guardedStack {
	t.Helper()
	return startGuardedWith(t, basic, host, "")
}

// startGuardedWith is startGuarded with more configuration: further upstreams, and what follows.
func startGuardedWith(t *testing.T, basic bool, host func(*privatetest.Registry) string, more string) *guardedStack {
	t.Helper()
	registry := privatetest.Start(t, basic)
	registry.AddUser(privatetest.Anonymous, "", "team/public")
	registry.AddUser("alice", alicePassword, "team/private")
	registry.AddUser("bob", bobPassword, "team/other")
	registry.AddIdentityToken("alice", aliceToken)
	for _, repository := range []string{"team/public", "team/private"} {
		registry.PushImage(t, repository, "1.0", randomImage(t))
	}
	s := newStack(t, fmt.Sprintf("access: {key_file: %q}\nupstreams:\n  - {host: %q, endpoint: %q, access: client}\n",
		filepath.Join(t.TempDir(), "access.key"), host(registry), registry.URL)+more)
	s.startLarder(t)
	g := &guardedStack{s, registry}
	t.Cleanup(func() { g.requireNoSecret(t) })
	return g
}

// ownHost and guardedHost are hosts for startGuarded: the registry's own, and guardedName.
func ownHost(r *privatetest.Registry) string   { return r.Host }
func guardedHost(*privatetest.Registry) string { return guardedName }

// requireNoSecret fails the test if a file of Larder, or its log, has a secret.
func (g *guardedStack) requireNoSecret(t *testing.T) {
	t.Helper()
	privatetest.RequireNoSecret(t, g.cache, g.larder.logged(), alicePassword, bobPassword, aliceToken)
}

// A login is what a client has for a registry. The zero value is nothing.
type login struct{ user, password, identityToken string }

// authFile writes a file with the login for a key, and returns its folder.
func (l login) authFile(t *testing.T, key string) (dir string) {
	t.Helper()
	return authFile(t, map[string]login{key: l})
}

// authFile writes a file with logins, as Docker, podman, crane and others read it, and returns its folder.
func authFile(t *testing.T, logins map[string]login) (dir string) {
	t.Helper()
	auths := make(map[string]any)
	for key, l := range logins {
		if l != (login{}) {
			auths[key] = map[string]string{
				"auth":          base64.StdEncoding.EncodeToString([]byte(l.user + ":" + l.password)),
				"identitytoken": l.identityToken,
			}
		}
	}
	raw, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), string(raw))
	return dir
}

// An accessCase is a pull and how it must end.
type accessCase struct {
	name       string
	repository string
	login      login
	ok         bool
}

// accessCases are in an order in which images are cached before somebody asks for them in vain.
func accessCases() []accessCase {
	return []accessCase{
		{"public without a login", "team/public", login{}, true},
		{"private with the right password", "team/private", login{user: "alice", password: alicePassword}, true},
		{"private with a wrong password", "team/private", login{user: "alice", password: "wrong"}, false},
		{"private as another user", "team/private", login{user: "bob", password: bobPassword}, false},
		{"private without a login", "team/private", login{}, false},
	}
}

// identityCase is for clients that have identity tokens.
func identityCase() accessCase {
	return accessCase{"private with an identity token", "team/private", login{user: "alice", identityToken: aliceToken}, true}
}

// schemes are the ways in which the registry authenticates, by name; true is basic.
func schemes() map[string]bool { return map[string]bool{"bearer": false, "basic": true} }
