package auth

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
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/redact"
)

// DockerConfig finds a registry's login in a file of the form of Docker's
// config.json; Kubernetes' .dockerconfigjson and podman's auth.json have the same
// form. The file is read at each use, so that it may be replaced. The answer of a
// credential helper is kept for five minutes. It is safe for concurrent use.
type DockerConfig struct {
	file          string
	server        string        // the registry, as the file and helpers call it
	helperTimeout time.Duration // helperTimeout, except in tests

	flights singleflight.Group

	mu   sync.Mutex // guards what follows; not held while a helper runs
	kept helperAnswer
}

const (
	// maxDockerConfig bounds the file, in bytes.
	maxDockerConfig = 1 << 20
	// dockerHubServer is Docker Hub's name in these files and for helpers (docker
	// login, "Credential store").
	dockerHubServer = "https://index.docker.io/v1/"
	// dockerHubHost is the host in it, which globs are matched with.
	dockerHubHost = "index.docker.io"
)

// NewDockerConfig returns the logins for the registry whose /v2 is at endpoint.
// They are looked up by the endpoint's host, whatever clients call the registry.
func NewDockerConfig(file string, endpoint *url.URL) *DockerConfig {
	return &DockerConfig{file: file, server: dockerServer(name.CanonicalHost(endpoint.Host)), helperTimeout: helperTimeout}
}

// dockerServer returns the one name for all keys of these files that mean the same
// registry. It is "" for a key of a part of a registry, such as quay.io/team: its
// login must not be used for other repositories.
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
	if host = name.CanonicalHost(host); host == name.DockerHub {
		return dockerHubServer
	}
	return host
}

// Login is for [Logins].
func (d *DockerConfig) Login(ctx context.Context) (Login, error) {
	doc, err := readDockerConfig(d.file)
	if err != nil {
		return Login{}, NewError("read the Docker configuration "+d.file, err)
	}
	if helper, ok := find(doc.CredHelpers, d.server); ok && helper != "" {
		return d.fromHelper(ctx, helper)
	}
	if doc.CredsStore != "" {
		l, err := d.fromHelper(ctx, doc.CredsStore)
		if err != nil || l != (Login{}) {
			return l, err
		}
	}
	entry, ok := find(doc.Auths, d.server)
	if !ok {
		entry = findGlob(doc.Auths, d.server)
	}
	l, err := entry.login()
	if err != nil {
		return Login{}, NewError(fmt.Sprintf("read auths of %s for %s", d.file, d.server), err)
	}
	return l, nil
}

// Refused has a helper run again, unless it ran in the last ten seconds.
func (d *DockerConfig) Refused(l Login) bool {
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

// From is for [Logins].
func (d *DockerConfig) From() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept.helper != "" && d.kept.login != (Login{}) {
		return d.file + " by docker-credential-" + d.kept.helper
	}
	return d.file
}

// fromHelper returns a helper's answer. Concurrent callers share one run, which
// ctx does not end.
func (d *DockerConfig) fromHelper(ctx context.Context, helper string) (Login, error) {
	if kept := d.keptOf(helper); kept.fresh(time.Now()) {
		return kept.login, kept.err
	}
	answer := d.flights.DoChan(helper, func() (any, error) {
		if kept := d.keptOf(helper); kept.fresh(time.Now()) {
			return kept.login, kept.err // a run that has just ended brought it
		}
		l, err := runHelper(context.WithoutCancel(ctx), d.helperTimeout, helper, d.server)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.kept = helperAnswer{helper: helper, login: l, err: err, at: time.Now()}
		return l, err
	})
	select {
	case r := <-answer:
		return r.Val.(Login), r.Err
	case <-ctx.Done():
		return Login{}, context.Cause(ctx)
	}
}

func (d *DockerConfig) keptOf(helper string) helperAnswer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept.helper != helper {
		return helperAnswer{}
	}
	return d.kept
}

// dockerDocument is the part of such a file that is used here.
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

// errAuthForm does not quote the value, which is a password.
var errAuthForm = errors.New("auth is not the base64 of user:password")

func (a dockerAuth) login() (Login, error) {
	switch {
	case a.RegistryToken != "":
		return Login{Bearer: a.RegistryToken}, nil
	case a.IdentityToken != "":
		return Login{Refresh: a.IdentityToken}, nil
	case a.Auth == "":
		return Login{Username: a.Username, Password: a.Password}, nil
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(a.Auth, "="))
	username, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || username == "" {
		return Login{}, errAuthForm
	}
	return Login{Username: username, Password: strings.TrimRight(password, "\x00")}, nil
}

func readDockerConfig(file string) (dockerDocument, error) {
	f, err := os.Open(file)
	if err != nil {
		return dockerDocument{}, err
	}
	defer f.Close()
	var doc dockerDocument
	if err := json.NewDecoder(io.LimitReader(f, maxDockerConfig)).Decode(&doc); err != nil {
		return dockerDocument{}, fmt.Errorf("it is not a Docker configuration of at most %d bytes: %w", maxDockerConfig, redact.JSON(err))
	}
	return doc, nil
}

// find returns a section's entry for a server: the one of its exact name, or the
// first in order of those that mean the same.
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

// findGlob returns the entry whose key is a glob for a server, as Kubernetes reads
// pull secrets ("Images", "Interpretation of config.json"): a pattern of [path.Match]
// for each label, as many labels, and the same port. The last in order of several is
// used, as stars sort before letters.
func findGlob(auths map[string]dockerAuth, server string) dockerAuth {
	if server == dockerHubServer {
		server = dockerHubHost
	}
	for _, key := range slices.Backward(slices.Sorted(maps.Keys(auths))) {
		if strings.ContainsAny(key, "*?[") && matchesLabels(dockerServer(key), server) {
			return auths[key]
		}
	}
	return dockerAuth{}
}

// matchesLabels matches host[:port] with a glob for each label.
func matchesLabels(glob, host string) bool {
	glob, globPort := cutPort(glob)
	host, port := cutPort(host)
	globs, labels := strings.Split(glob, "."), strings.Split(host, ".")
	if globPort != port || len(globs) != len(labels) {
		return false
	}
	for i := range globs {
		if ok, err := path.Match(globs[i], labels[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// cutPort splits host[:port]. An IPv6 address keeps its colons.
func cutPort(s string) (host, port string) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && name.IsPort(s[i+1:]) && !strings.HasPrefix(s, "[") {
		return s[:i], s[i+1:]
	}
	return s, ""
}
