package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// dockerConfig finds a registry's login in a file of the form of Docker's
// config.json, in which Kubernetes keeps .dockerconfigjson and podman auth.json
// too. The file is read at each use, so that it may be replaced; what a
// credential helper said is kept for a while.
type dockerConfig struct {
	file   string
	server string // the registry, as the file and helpers call it

	flights singleflight.Group

	mu   sync.Mutex // guards what follows; not held while a helper runs
	kept helperAnswer
}

const (
	// maxDockerConfig bounds the file, in bytes.
	maxDockerConfig = 1 << 20
	// dockerHubServer is what Docker Hub is called in these files and by helpers
	// (docker login, "Credential store").
	dockerHubServer = "https://index.docker.io/v1/"
)

// newDockerConfig looks up the registry whose /v2 is at endpoint: its login is
// for that host, whatever clients call it.
func newDockerConfig(file string, endpoint *url.URL) *dockerConfig {
	return &dockerConfig{file: file, server: dockerServer(endpoint.Host)}
}

// dockerServer is the one name for a key of these files. It is "" for a key
// that is about a part of a registry, such as quay.io/team: what is for some
// repositories must not be used for others.
func dockerServer(key string) string {
	key = strings.ToLower(key)
	for _, scheme := range []string{"https://", "http://"} {
		key = strings.TrimPrefix(key, scheme)
	}
	host, path, _ := strings.Cut(key, "/")
	switch path {
	case "", "v1", "v1/", "v2", "v2/":
	default:
		return ""
	}
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return dockerHubServer
	}
	return host
}

func (d *dockerConfig) login(ctx context.Context) (login, error) {
	doc, err := readDockerConfig(d.file)
	if err != nil {
		return login{}, &credentialsError{"read the Docker configuration " + d.file, err}
	}
	if name, ok := find(doc.CredHelpers, d.server); ok && name != "" {
		return d.fromHelper(ctx, name)
	}
	if doc.CredsStore != "" {
		l, err := d.fromHelper(ctx, doc.CredsStore)
		if err != nil || l != (login{}) {
			return l, err
		}
	}
	entry, _ := find(doc.Auths, d.server)
	l, err := entry.login()
	if err != nil {
		return login{}, &credentialsError{fmt.Sprintf("read auths of %s for %s", d.file, d.server), err}
	}
	return l, nil
}

// refused has a helper asked again, unless it has just been.
func (d *dockerConfig) refused(l login) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept.helper == "" {
		return false
	}
	if d.kept.login == l {
		if time.Since(d.kept.at) < helperPause {
			return false
		}
		d.kept = helperAnswer{}
	}
	return true
}

func (d *dockerConfig) from() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept.helper != "" && d.kept.login != (login{}) {
		return d.file + " by docker-credential-" + d.kept.helper
	}
	return d.file
}

// fromHelper runs a helper for all who ask at the same time.
func (d *dockerConfig) fromHelper(ctx context.Context, helper string) (login, error) {
	if kept := d.keptOf(helper); kept.good(time.Now()) {
		return kept.login, kept.err
	}
	answer := d.flights.DoChan(helper, func() (any, error) {
		if kept := d.keptOf(helper); kept.good(time.Now()) {
			return kept.login, kept.err // another flight has just landed
		}
		l, err := runHelper(context.WithoutCancel(ctx), helper, d.server)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.kept = helperAnswer{helper: helper, login: l, err: err, at: time.Now()}
		return l, err
	})
	select {
	case r := <-answer:
		return r.Val.(login), r.Err
	case <-ctx.Done():
		return login{}, context.Cause(ctx)
	}
}

func (d *dockerConfig) keptOf(helper string) helperAnswer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept.helper != helper {
		return helperAnswer{}
	}
	return d.kept
}

// dockerDocument is what of such a file is of use here.
type dockerDocument struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`
}

type dockerAuth struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// errAuthForm does not quote what it is about, which is a password.
var errAuthForm = errors.New("auth is not the base64 of user:password")

func (a dockerAuth) login() (login, error) {
	switch {
	case a.RegistryToken != "":
		return login{bearer: a.RegistryToken}, nil
	case a.IdentityToken != "":
		return login{refresh: a.IdentityToken}, nil
	case a.Auth == "":
		return login{username: a.Username, password: a.Password}, nil
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(a.Auth, "="))
	username, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || username == "" {
		return login{}, errAuthForm
	}
	return login{username: username, password: strings.TrimRight(password, "\x00")}, nil
}

func readDockerConfig(file string) (dockerDocument, error) {
	f, err := os.Open(file)
	if err != nil {
		return dockerDocument{}, err
	}
	defer f.Close()
	var doc dockerDocument
	if err := json.NewDecoder(io.LimitReader(f, maxDockerConfig)).Decode(&doc); err != nil {
		return dockerDocument{}, fmt.Errorf("it is not a Docker configuration of at most %d bytes: %w", maxDockerConfig, err)
	}
	return doc, nil
}

// find returns what a section says of a server: by its exact name first, then
// by the first in order of those that mean the same.
func find[V any](section map[string]V, server string) (V, bool) {
	if v, ok := section[server]; ok {
		return v, true
	}
	for _, key := range slices.Sorted(maps.Keys(section)) {
		if dockerServer(key) == server {
			return section[key], true
		}
	}
	var none V
	return none, false
}
