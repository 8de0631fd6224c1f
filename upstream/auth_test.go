package upstream

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// challenges are forms of the header, and how they read.
var challenges = map[string]challenge{
	`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"`: {"bearer", map[string]string{
		"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull",
	}},
	`Basic realm="https://123456789012.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com"`: {"basic", map[string]string{
		"realm": "https://123456789012.dkr.ecr.us-east-1.amazonaws.com/", "service": "ecr.amazonaws.com",
	}},
	`bEARER Realm=token , SERVICE = x`:             {"bearer", map[string]string{"realm": "token", "service": "x"}},
	`Bearer realm="a \"quoted\" \\ b",service="c"`: {"bearer", map[string]string{"realm": `a "quoted" \ b`, "service": "c"}},
	`Bearer realm="a,b=c", service="d"`:            {"bearer", map[string]string{"realm": "a,b=c", "service": "d"}},
	`Bearer realm="not closed`:                     {"bearer", map[string]string{"realm": "not closed"}},
	`Bearer realm="`:                               {"bearer", map[string]string{"realm": ""}},
	`Bearer realm=`:                                {"bearer", map[string]string{"realm": ""}},
	`Bearer ="x",realm="y"`:                        {"bearer", map[string]string{"realm": "y"}},
	`Bearer realm`:                                 {"bearer", map[string]string{}},
	`  Basic`:                                      {"basic", map[string]string{}},
}

func TestChallengeIsRead(t *testing.T) {
	for header, want := range challenges {
		got, ok := parseChallenge(http.Header{"Www-Authenticate": {header}})
		if !ok || got.scheme != want.scheme || !cmp.Equal(got.params, want.params) {
			t.Errorf("%s: %t, %+v; want %+v", header, ok, got, want)
		}
	}
}

func TestFirstChallengeOfAKnownSchemeCounts(t *testing.T) {
	got, ok := parseChallenge(http.Header{"Www-Authenticate": {`Negotiate`, `Bearer realm="x"`, `Basic realm="y"`}})
	if !ok || got.scheme != "bearer" || got.params["realm"] != "x" {
		t.Errorf("got %+v, %t", got, ok)
	}
	for _, unknown := range []http.Header{{}, {"Www-Authenticate": {""}}, {"Www-Authenticate": {"Negotiate"}}} {
		if got, ok := parseChallenge(unknown); ok {
			t.Errorf("%v reads as %+v", unknown, got)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	for header := range challenges {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := parseChallenge(http.Header{"Www-Authenticate": {header}})
		if !ok {
			return
		}
		if got.scheme != "bearer" && got.scheme != "basic" {
			t.Errorf("%q: scheme %q", header, got.scheme)
		}
		var size int
		for key, value := range got.params {
			if key == "" || key != strings.ToLower(key) {
				t.Errorf("%q: parameter %q", header, key)
			}
			if value != strings.TrimSpace(value) {
				t.Errorf("%q: value %q", header, value)
			}
			size += len(value)
		}
		if size > len(header) {
			t.Errorf("%q: %d bytes of values out of nothing: %v", header, size, got.params)
		}
	})
}

func TestBasicAuthenticationFollowsTheChallenge(t *testing.T) {
	var bare int
	registry := requireBasic("me", "hunter2", content)
	r, _ := startPlain(t, Config{Username: "me", PasswordFile: passwordFile(t, "hunter2\n")},
		func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "" {
				bare++
			}
			registry(w, req)
		})
	for range 3 {
		if got, err := blobBody(t, r); err != nil || got != "content" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if bare != 1 {
		t.Errorf("%d requests came without credentials, want the first", bare)
	}
}

func TestReplacedPasswordFileIsReadAtTheNextUse(t *testing.T) {
	file := passwordFile(t, "old")
	r, _ := startPlain(t, Config{Username: "me", PasswordFile: file}, requireBasic("me", "new", content))
	if _, err := blobBody(t, r); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("with the old password: %v, want %v", err, fs.ErrPermission)
	}
	writeFile(t, file, "new\r\n")
	if got, err := blobBody(t, r); err != nil || got != "content" {
		t.Errorf("with the new password: %q, %v", got, err)
	}
}

func TestMissingPasswordFileIsToldAndNotRetried(t *testing.T) {
	var asked int
	registry := requireBasic("me", "hunter2", content)
	cfg := Config{Username: "me", PasswordFile: filepath.Join(t.TempDir(), "none")}
	r, _ := startPlain(t, cfg, func(w http.ResponseWriter, req *http.Request) {
		asked++
		registry(w, req)
	})
	_, _, err := r.Manifest(t.Context(), repo, "v1", false)
	wantNoCredentials(t, err, cfg.PasswordFile)
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

func TestRegistryWithoutCredentialsIsAskedAsAnyone(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			t.Errorf("sent Authorization %q", req.Header.Get("Authorization"))
		}
		content(w, req)
	})
	if got, err := blobBody(t, r); err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBasicChallengeWithoutCredentialsIsADenial(t *testing.T) {
	var asked int
	registry := requireBasic("me", "hunter2", content)
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		asked++
		registry(w, req)
	})
	if _, err := blobBody(t, r); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %v", err, fs.ErrPermission)
	}
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

// wantNoCredentials wants an error about credentials, which must not be taken
// for the registry's word that there is no such image.
func wantNoCredentials(t *testing.T, err error, text string) {
	t.Helper()
	var credentials *credentialsError
	if !errors.As(err, &credentials) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error about credentials with %q", err, text)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v reads as an answer of the registry", err)
	}
}
