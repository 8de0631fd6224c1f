// Package privatetest is a registry in this process whose users have rights of their own, for
// tests: with bearer tokens of a token service or with basic authentication.
package privatetest

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Anonymous is the user of requests without credentials.
const Anonymous = ""

// Registry is a registry on loopback. It is safe for concurrent use.
type Registry struct {
	// Host is its host:port, and URL its address.
	Host, URL string
	basic     bool
	server    *httptest.Server
	content   http.Handler

	mu     sync.Mutex // guards what follows
	users  map[string]string
	tokens map[string]string          // the identity tokens of users
	rights map[string]map[string]bool // repositories by user
	blobs  map[string]bool            // by path
	hides  bool
	open   bool // /v2/ itself wants no login
	down   bool
	asked  map[Question]int
	sent   map[string]int   // by path
	held   map[string]*Held // by path
	direct int              // requests of others than Larder
	seen   []string         // the Authorization headers of requests
}

// Question is what the registry was asked, and for whom.
type Question struct {
	User, Repository, Kind string // the kind is manifests, blobs, tags, referrers, base or token
}

// Start starts a registry that ends with the test. With basic, it wants basic authentication.
func Start(t testing.TB, basic bool) *Registry {
	t.Helper()
	r := &Registry{
		basic:   basic,
		content: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)),
		users:   make(map[string]string),
		tokens:  make(map[string]string),
		rights:  make(map[string]map[string]bool),
		blobs:   make(map[string]bool),
		asked:   make(map[Question]int),
		sent:    make(map[string]int),
		held:    make(map[string]*Held),
	}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	r.URL = r.server.URL
	r.Host = strings.TrimPrefix(r.URL, "http://")
	r.AddUser("pusher", "pusher's password")
	return r
}

// AddUser adds a user who may pull from some repositories; Anonymous is one without a password. The
// rights take the place of earlier ones.
func (r *Registry) AddUser(user, password string, repositories ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users[user] = password
	r.rights[user] = make(map[string]bool)
	for _, repository := range repositories {
		r.rights[user][repository] = true
	}
}

// AddIdentityToken adds an identity token of a user.
func (r *Registry) AddIdentityToken(user, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[token] = user
}

// Hide has the registry answer 404 in place of 403, and of 401 to users whom it knows.
func (r *Registry) Hide() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hides = true
}

// Open has the registry answer at /v2/ without a login, and challenge for what is in repositories alone.
func (r *Registry) Open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = true
}

// SetDown has the registry cut every connection without an answer, or stop doing so.
func (r *Registry) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// Asked returns how often the registry was asked what, since it started.
func (r *Registry) Asked() map[Question]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.asked)
}

// Sent returns how many GETs of a path it has answered with content.
func (r *Registry) Sent(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent[path]
}

// Direct returns how many requests came from others than Larder since the last push.
func (r *Registry) Direct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.direct
}

// Push pushes a random image of one layer, and returns it.
func (r *Registry) Push(t testing.TB, repository, tag string, size int64) v1.Image {
	t.Helper()
	image, err := random.Image(size, 1)
	if err != nil {
		t.Fatal(err)
	}
	r.PushImage(t, repository, tag, image)
	return image
}

// PushImage pushes an image.
func (r *Registry) PushImage(t testing.TB, repository, tag string, image v1.Image) {
	t.Helper()
	ref, err := name.NewTag(fmt.Sprintf("%s/%s:%s", r.Host, repository, tag), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: "pusher", Password: "pusher's password"})); err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	config, err := partial.ConfigLayer(image)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.direct = 0
	for _, blob := range append(layers, config) {
		d, err := blob.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r.blobs["/v2/"+repository+"/blobs/"+d.String()] = true
	}
}

// RemoveBlob removes a blob from a repository, by the path of its URL, and not from the manifests that name it.
func (r *Registry) RemoveBlob(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.blobs, path)
}

// ServeHTTP answers a request as the registry or its token service.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	down, open := r.down, r.open
	if req.UserAgent() != "larder" {
		r.direct++
	}
	r.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	repository, kind := split(req.URL.Path)
	user, known := r.userOf(req)
	if !known || kind == "base" && user == Anonymous && !open {
		r.note(Question{user, repository, kind})
		r.challenge(w, repository)
		return
	}
	r.note(Question{user, repository, kind})
	if kind != "base" && !r.may(user, repository) {
		r.refuse(w, user, repository)
		return
	}
	if kind == "blobs" && user != "pusher" && !r.has(req.URL.Path) { // the content below knows no repositories of blobs
		answer(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	counted := &contentWriter{ResponseWriter: w, held: r.heldAt(req.URL.Path), gone: req.Context().Done()}
	r.content.ServeHTTP(counted, req)
	if req.Method == http.MethodGet && counted.status < http.StatusMultipleChoices {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent[req.URL.Path]++
	}
}

// split returns the repository and the kind of a path.
func split(path string) (repository, kind string) {
	path = strings.TrimPrefix(path, "/v2/")
	for _, kind := range []string{"manifests", "blobs", "tags", "referrers"} {
		if i := strings.LastIndex(path, "/"+kind+"/"); i > 0 {
			return path[:i], kind
		}
	}
	return "", "base"
}

func (r *Registry) note(q Question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[q]++
}

func (r *Registry) may(user, repository string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return user == "pusher" || r.rights[user][repository] || r.rights[Anonymous][repository]
}

func (r *Registry) has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[path]
}

// userOf returns the user of a request's credentials, and false if they are wrong.
func (r *Registry) userOf(req *http.Request) (string, bool) {
	header := req.Header.Get("Authorization")
	r.mu.Lock()
	defer r.mu.Unlock()
	if header == "" {
		return Anonymous, true
	}
	r.seen = append(r.seen, header)
	if user, password, ok := req.BasicAuth(); ok {
		want, known := r.users[user]
		return user, r.basic && known && want == password
	}
	user, ok := strings.CutPrefix(header, "Bearer token-of-")
	return user, ok && !r.basic
}

func (r *Registry) challenge(w http.ResponseWriter, repository string) {
	header := `Basic realm="private"`
	if !r.basic {
		header = fmt.Sprintf(`Bearer realm="%s/token",service="private"`, r.URL)
		if repository != "" {
			header += `,scope="repository:` + repository + `:pull"`
		}
	}
	w.Header().Set("WWW-Authenticate", header)
	answer(w, http.StatusUnauthorized, "UNAUTHORIZED")
}

// refuse answers a user who may not.
func (r *Registry) refuse(w http.ResponseWriter, user, repository string) {
	r.mu.Lock()
	hides := r.hides
	r.mu.Unlock()
	switch {
	case user == Anonymous:
		r.challenge(w, repository)
	case hides:
		answer(w, http.StatusNotFound, "NAME_UNKNOWN")
	default:
		answer(w, http.StatusForbidden, "DENIED")
	}
}

func answer(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"no"}]}`, code)
}

// token is the token service. Its tokens name their user.
func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	user, password, ok := req.BasicAuth()
	if req.Method == http.MethodPost {
		_ = req.ParseForm()
		user, password, ok = req.PostForm.Get("username"), req.PostForm.Get("password"), true
	}
	r.mu.Lock()
	if refresh := req.PostForm.Get("refresh_token"); refresh != "" {
		user, ok = r.tokens[refresh]
		password = r.users[user]
	}
	want, known := r.users[user]
	anonymous := !ok && req.PostForm.Get("refresh_token") == ""
	r.mu.Unlock()
	repository, _ := strings.CutSuffix(strings.TrimPrefix(req.FormValue("scope"), "repository:"), ":pull")
	r.note(Question{user, repository, "token"})
	if !anonymous && (!ok || !known || want != password) {
		answer(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": "token-of-" + user, "expires_in": 300})
}
