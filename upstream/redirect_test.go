package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/guard/guardtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

var someBlob = digest.FromString("content")

// blobBody asks for the first bytes of a blob and returns the answer's.
func blobBody(t *testing.T, r *Registry) (string, error) {
	t.Helper()
	part, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 100})
	if err != nil {
		return "", err
	}
	return readAll(t, part.Body), nil
}

// content answers a request for someBlob.
func content(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader("content"))
}

// redirect redirects each request to the same path of another server.
func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	}
}

// requireBasic answers 401 to requests without this login.
func requireBasic(username, password string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		if !ok || u != username || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func TestCredentialsStayAtTheRegistry(t *testing.T) {
	var seen []http.Header
	storage := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		content(w, r)
	})
	storageURL := mustURL(t, storage.URL)
	for name, to := range map[string]string{
		"another port":      storage.URL,
		"another host name": "http://localhost:" + storageURL.Port(),
	} {
		t.Run(name, func(t *testing.T) {
			seen = nil
			cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
			r, _ := startPlain(t, cfg, requireBasic("me", "hunter2", func(w http.ResponseWriter, r *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
				redirect(to)(w, r)
			}))
			for range 2 { // by way of the registry, and straight to the storage
				if got, err := blobBody(t, r); err != nil || got != "content" {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			if len(seen) != 2 {
				t.Fatalf("storage was asked %d times, want 2", len(seen))
			}
			for _, h := range seen {
				for _, secret := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
					if h.Get(secret) != "" {
						t.Errorf("storage was sent %s: %s", secret, h.Get(secret))
					}
				}
			}
		})
	}
}

func TestRedirectToTheRegistryItselfCarriesCredentials(t *testing.T) {
	cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
	r, _ := startPlain(t, cfg, requireBasic("me", "hunter2", func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"); ok {
			http.Redirect(w, r, "/elsewhere/"+rest, http.StatusFound) // relative
			return
		}
		content(w, r)
	}))
	if got, err := blobBody(t, r); err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A port that is the scheme's own means the same server. Connections to it lead to
// one here.
func TestRedirectWithTheDefaultPortCarriesCredentials(t *testing.T) {
	cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
	r, _ := startElsewhere(t, cfg, requireBasic("me", "hunter2", func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"); ok {
			w.Header().Set("Location", "http://registry.test:80/elsewhere/"+rest)
			w.WriteHeader(http.StatusFound)
			return
		}
		content(w, r)
	}))
	if got, err := blobBody(t, r); err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestStorageIsToldTheRegistrysURLAndToSendBytesAsTheyAre(t *testing.T) {
	var referers []string
	storage := serve(t, func(w http.ResponseWriter, r *http.Request) {
		referers = append(referers, r.Referer())
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding: %q", r.Header.Get("Accept-Encoding"))
		}
		content(w, r)
	})
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding: %q", r.Header.Get("Accept-Encoding"))
		}
		http.Redirect(w, r, storage.URL+"/a?X-Amz-Signature=secret", http.StatusTemporaryRedirect)
	})
	for range 2 { // by way of the registry, and straight to the storage
		if got, err := blobBody(t, r); err != nil || got != "content" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	want := siteOf(r).endpoint.String() + "/v2/" + repo + "/blobs/" + someBlob.String()
	if !slices.Equal(referers, []string{want, want}) {
		t.Errorf("the referers are %q, want %q", referers, want)
	}
}

// guarded is a registry that wants a bearer token for each repository, which its own
// token service gives to anybody. It reports a login that it is sent.
func guarded(t *testing.T, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok {
			t.Errorf("%s was sent a login", r.URL.Path)
		}
		repository := repositoryIn(r.URL.Path)
		switch {
		case r.URL.Path == "/token":
			_, _ = w.Write([]byte(`{"token":"for ` + r.FormValue("scope") + `"}`))
		case repository != "" && r.Header.Get("Authorization") == "Bearer for repository:"+repository+":pull":
			next(w, r)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
}

// The other registry has the repository under another name, and its storage wants no
// token.
func TestRegistryMayRedirectToOneThatWantsAnAnonymousToken(t *testing.T) {
	var issued atomic.Int64
	storage := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the storage was sent %q", r.Header.Get("Authorization"))
		}
		content(w, r)
	})
	other := guarded(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/blobs/"):
			redirect(storage.URL)(w, r)
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", manifestType)
			w.Header().Set("Docker-Content-Digest", digest.FromString(manifestBody).String())
			_, _ = w.Write([]byte(manifestBody))
		default:
			_, _ = w.Write([]byte(`{"tags":["v1"]}`))
		}
	})
	second := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			issued.Add(1)
		}
		other(w, r)
	})
	cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
	r, log := startPlain(t, cfg, requireBasic("me", "hunter2", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, second.URL+strings.Replace(r.URL.Path, "/v2/", "/v2/elsewhere/", 1), http.StatusFound)
	}))
	for name, ask := range questions {
		for range 2 {
			if err := ask(t.Context(), r, someBlob); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if n := issued.Load(); n != 1 {
		t.Errorf("%d tokens were issued for one repository", n)
	}
	log.WantLines(t, "level=WARN", 0)
}

func TestOtherRegistryThatWantsALoginRefuses(t *testing.T) {
	second := serve(t, requireBasic("you", "other", content))
	cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
	r, _ := startPlain(t, cfg, requireBasic("me", "hunter2", redirect(second.URL)))
	if _, err := blobBody(t, r); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %v", err, fs.ErrPermission)
	}
}

func TestRegistryThatHidesFromStrangersIsLoggedInAt(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden} {
		for scheme, challenge := range map[string]func(http.HandlerFunc) http.HandlerFunc{
			"basic": func(next http.HandlerFunc) http.HandlerFunc { return requireBasic("me", "hunter2", next) },
			"bearer": func(next http.HandlerFunc) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path == "/token":
						requireBasic("me", "hunter2", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"good"}`)) })(w, r)
					case r.Header.Get("Authorization") == "Bearer good":
						next(w, r)
					default:
						w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
						w.WriteHeader(http.StatusUnauthorized)
					}
				}
			},
		} {
			for name, ask := range questions {
				t.Run(fmt.Sprint(status, "/", scheme, "/", name), func(t *testing.T) {
					open := challenge(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Content-Type", manifestType)
						w.Header().Set("Docker-Content-Digest", someBlob.String())
						content(w, r)
					})
					cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
					r, _ := startPlain(t, cfg, func(w http.ResponseWriter, r *http.Request) {
						if r.Header.Get("Authorization") == "" && r.URL.Path != "/v2/" && r.URL.Path != "/token" {
							w.WriteHeader(status)
							return
						}
						open(w, r)
					})
					if err := ask(t.Context(), r, someBlob); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

func TestOpenRegistryIsAskedForALoginOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, base int
		via := serveInBubble(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			if r.URL.Path == "/v2/" {
				base++
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}))
		c, _ := newTestClientOn(t, via, Config{Host: "registry.test", Endpoint: "http://registry.test"})
		r := registryOf(t, c, "registry.test")
		for range 5 {
			if err := pull(t, r, repo); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v, want %v", err, fs.ErrNotExist)
			}
		}
		if base != 1 || asked != 6 {
			t.Errorf("%d requests, %d of them for /v2/", asked, base)
		}
		pass(strangerPause)
		if err := pull(t, r, repo); !errors.Is(err, fs.ErrNotExist) || base != 2 {
			t.Errorf("after a pause: %v, %d requests for /v2/, want 2", err, base)
		}
	})
}

func TestSignedURLIsUsedForLaterRanges(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	for off := range int64(10) {
		part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Off: off * 100, Len: 100})
		if err != nil || part.Size != 1000 || part.Whole {
			t.Fatalf("offset %d: size %d, whole %t, %v", off*100, part.Size, part.Whole, err)
		}
		if got := readAll(t, part.Body); len(got) != 100 {
			t.Errorf("offset %d: %d bytes", off*100, len(got))
		}
	}
	if got := server.Stats().Blobs[dgst]; got.Redirects != 1 || got.Requests != 10 {
		t.Errorf("%d redirects and %d requests to storage, want 1 and 10", got.Redirects, got.Requests)
	}
}

func TestRefusedURLIsReplaced(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	for range 3 {
		part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 1000})
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, part.Body)
		server.ExpireURLs()
	}
	if got := server.Stats().Blobs[dgst]; got.Redirects != 3 || got.Requests != 5 {
		t.Errorf("%d redirects and %d requests to storage, want 3 and 5", got.Redirects, got.Requests)
	}
}

func TestStorageThatCannotBeReachedIsReplaced(t *testing.T) {
	first, second := serve(t, content), serve(t, content)
	to := first.URL
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) { redirect(to)(w, req) })
	if got, err := blobBody(t, r); err != nil || got != "content" {
		t.Fatalf("got %q, %v", got, err)
	}
	first.Close()
	to = second.URL
	for range 2 {
		if got, err := blobBody(t, r); err != nil || got != "content" {
			t.Errorf("after the storage moved: got %q, %v", got, err)
		}
	}
}

func TestRefusedURLIsForgottenEvenWithoutAnotherOne(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	if err := questions["blob"](t.Context(), server.Registry, dgst); err != nil {
		t.Fatal(err)
	}
	server.ExpireURLs()
	defer server.Inject(ecrtest.Fault{On: ecrtest.Blob, Status: http.StatusServiceUnavailable})()
	for range 3 {
		if err := questions["blob"](t.Context(), server.Registry, dgst); err == nil {
			t.Fatal("a blob came without a URL")
		}
	}
	if got := server.Stats().Blobs[dgst].Requests; got != 2 {
		t.Errorf("storage was asked %d times, want once before and once after the URL expired", got)
	}
}

func TestURLThatStorageNeverAcceptedIsNotKept(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	server.Inject(ecrtest.Fault{On: ecrtest.Storage, Times: 1, Status: http.StatusForbidden})
	if _, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 1000}); err == nil {
		t.Fatal("a refusal is no error")
	}
	part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 1000})
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, part.Body)
	if got := server.Stats().Blobs[dgst]; got.Redirects != 2 || got.Requests != 2 {
		t.Errorf("%d redirects and %d requests to storage, want 2 of each", got.Redirects, got.Requests)
	}
}

func TestSignedURLIsUsedForItsLife(t *testing.T) {
	for raw, life := range map[string]time.Duration{
		"https://s3.test/x?X-Amz-Expires=3600":                 time.Hour - locationMargin,
		"https://s3.test/x?X-Amz-Expires=60":                   30 * time.Second,
		"https://s3.test/x?X-Amz-Expires=10":                   5 * time.Second,
		"https://s3.test/x?X-Amz-Expires=0":                    locationLife,
		"https://s3.test/x?X-Amz-Expires=-5":                   locationLife,
		"https://s3.test/x?X-Amz-Expires=soon":                 locationLife,
		"https://s3.test/x?X-Amz-Expires=99999999999999999999": locationLife,
		"https://cdn.test/x":                                   locationLife,
	} {
		u := mustURL(t, raw)
		synctest.Test(t, func(t *testing.T) {
			l := newLocations()
			l.put("blob", u)
			pass(life - time.Millisecond)
			if got, ok := l.get("blob"); !ok || got != u {
				t.Errorf("%s is forgotten before %v", raw, life)
			}
			pass(2 * time.Millisecond)
			if _, ok := l.get("blob"); ok {
				t.Errorf("%s is used after %v", raw, life)
			}
		})
	}
}

func TestOnlyTheURLThatFailedIsForgotten(t *testing.T) {
	l := newLocations()
	old, renewed := &url.URL{Host: "a.test"}, &url.URL{Host: "b.test"}
	l.put("blob", old)
	l.put("blob", renewed)
	l.drop("blob", old)
	if got, ok := l.get("blob"); !ok || got != renewed {
		t.Error("the URL in place of the refused one is forgotten, too")
	}
	l.drop("blob", renewed)
	if _, ok := l.get("blob"); ok {
		t.Error("the refused URL is used")
	}
}

func TestRedirectsThroughAMirrorWorkForEveryRange(t *testing.T) {
	storage := serve(t, content)
	mirror := serve(t, redirect(storage.URL))
	r, _ := startPlain(t, Config{}, redirect(mirror.URL))
	for range 3 {
		if got, err := blobBody(t, r); err != nil || got != "content" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

func TestRedirectLoopEnds(t *testing.T) {
	var asked atomic.Int64
	var server *httptest.Server
	server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		redirect(server.URL)(w, r)
	})
	r, _ := startPlain(t, Config{}, redirect(server.URL))
	for name, ask := range questions {
		if name == "has blob" {
			continue // it follows no redirect
		}
		asked.Store(0)
		if err := ask(t.Context(), r, someBlob); err == nil {
			t.Errorf("%s: a loop is no error", name)
		}
		if n := asked.Load(); n == 0 || n > 3*maxHops {
			t.Errorf("%s: followed %d redirects", name, n)
		}
	}
}

// startElsewhere runs a registry whose endpoint is a public name, as far as the
// client can tell: only the connections to it lead to a server here. Every other
// name resolves to 127.0.0.1.
func startElsewhere(t *testing.T, cfg Config, h http.HandlerFunc) (*Registry, *upstreamtest.Log) {
	t.Helper()
	server := serve(t, h)
	trs := guard.NewTransports(guard.Options{Resolver: guardtest.Resolver(t, [4]byte{127, 0, 0, 1})})
	cfg.Host, cfg.Endpoint = "registry.test", "http://registry.test"
	lead(t, trs.For(mustURL(t, cfg.Endpoint)), "registry.test:80", server.Listener.Addr())
	c, log := newTestClientOn(t, network{transports: trs}, cfg)
	return registryOf(t, c, cfg.Host), log
}

// lead has connections to one address go to another one.
func lead(t *testing.T, tr *guard.Transport, from string, to net.Addr) {
	t.Helper()
	tr.Proxy = nil // the machine may have one
	guarded := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == from {
			return (&net.Dialer{}).DialContext(ctx, network, to.String())
		}
		return guarded(ctx, network, addr)
	}
}

func TestForeignRealmIsNotDialledAndGetsNoPassword(t *testing.T) {
	bell := guardtest.NewDoorbell(t)
	for _, realm := range []string{
		"http://127.0.0.1:" + bell.Port(t) + "/token",
		"http://rebound.registry.test:" + bell.Port(t) + "/token",
		"http://evil.example/token",
	} {
		t.Run(realm, func(t *testing.T) {
			cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
			r, log := startElsewhere(t, cfg, func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Authorization") != "" {
					t.Error("the registry was sent credentials that it did not ask for")
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			lead(t, siteOf(r).transport, "evil.example:80", bell.Addr()) // a public address, as far as the guard can tell
			for range 2 {
				var refused *guard.RefusedError
				if err := pull(t, r, "a"); !errors.As(err, &refused) {
					t.Errorf("got %v, want a refusal", err)
				}
			}
			log.WantLines(t, "level=WARN", 2)
			if strings.Contains(log.String(), "hunter2") {
				t.Errorf("the password is logged:\n%s", log)
			}
		})
	}
	bell.WantNobody(t)
}

func TestRedirectToAForbiddenAddressIsNotDialled(t *testing.T) {
	bell := guardtest.NewDoorbell(t)
	port := bell.Port(t)
	for _, to := range []string{
		"http://127.0.0.1:" + port,
		"http://localhost:" + port,
		"http://LOCALHOST.:" + port,
		"http://[::ffff:127.0.0.1]:" + port,
		"http://0.0.0.0:" + port,
		"http://rebound.test:" + port,
		"http://169.254.169.254/latest/meta-data",
		"http://[fd00:ec2::254]/latest/meta-data",
		"http://[fe80::1%25lo]:" + port,
		"http://user:pw@cdn.test",
		"ftp://cdn.test",
	} {
		t.Run(to, func(t *testing.T) {
			r, log := startElsewhere(t, Config{}, redirect(to))
			for name, ask := range questions {
				if name == "has blob" {
					continue // it follows no redirect
				}
				err := ask(t.Context(), r, someBlob)
				var refused *guard.RefusedError
				if !errors.As(err, &refused) {
					t.Errorf("%s: %v, want a refusal", name, err)
				}
			}
			log.WantLines(t, "level=WARN", len(questions)-1)
			if strings.Contains(log.String(), "pw") {
				t.Errorf("a password is logged:\n%s", log)
			}
		})
	}
	bell.WantNobody(t)
}

func TestHTTPSDoesNotLeadToHTTP(t *testing.T) {
	bell := guardtest.NewDoorbell(t)
	server := httptest.NewTLSServer(redirect("http://127.0.0.1:" + bell.Port(t)))
	t.Cleanup(server.Close)
	c, _ := newTestClient(t, Config{Host: "registry.test", Endpoint: server.URL})
	r := registryOf(t, c, "registry.test")
	siteOf(r).transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	_, err := blobBody(t, r)
	var refused *guard.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("got %v, want a refusal", err)
	}
	bell.WantNobody(t)
}

func TestConcurrentRangesShareNothingButTheURL(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 64<<10))
	var done sync.WaitGroup
	for i := range int64(16) {
		done.Go(func() {
			part, err := server.OpenBlob(t.Context(), repo, dgst, Range{Off: i << 12, Len: 1 << 12, Spare: i%2 == 0})
			if err != nil {
				t.Error(err)
				return
			}
			want := make([]byte, 1<<12)
			if _, err := ecrtest.Random(1, 64<<10).ReadAt(want, i<<12); err != nil {
				t.Error(err)
			}
			if got := readAll(t, part.Body); got != string(want) {
				t.Errorf("the bytes at %d are not the blob's", i<<12)
			}
		})
	}
	done.Wait()
}

// pull asks for the beginning of a blob in a repository.
func pull(t *testing.T, r *Registry, repository string) error {
	t.Helper()
	part, err := r.OpenBlob(t.Context(), repository, someBlob, Range{Len: 100})
	if err == nil {
		readAll(t, part.Body)
	}
	return err
}

// The request is not tried again without a password.
func TestMissingPasswordFileIsNotTriedAgain(t *testing.T) {
	var asked int
	registry := requireBasic("me", "hunter2", content)
	cfg := Config{Username: "me", PasswordFile: filepath.Join(t.TempDir(), "none")}
	r, _ := startPlain(t, cfg, func(w http.ResponseWriter, req *http.Request) {
		asked++
		registry(w, req)
	})
	_, _, err := r.Manifest(t.Context(), repo, "v1", false)
	upstreamtest.WantNoCredentials(t, err, cfg.PasswordFile)
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

// The first request is challenged, so that the refusal answers the second one.
func TestRefusedHEADHasTheRegistrysWords(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			_, _ = w.Write([]byte(`{"token":"good"}`))
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Error(w, `{"errors":[{"code":"DENIED","message":"the plan has ended"}]}`, http.StatusForbidden)
		}
	})
	_, _, err := r.Manifest(t.Context(), repo, "v1", true)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "the plan has ended") {
		t.Errorf("got %v, want why it is denied", err)
	}
}

// A token that is no header value must not reach the registry.
func TestTokenWithALineBreakIsAnError(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			_, _ = w.Write([]byte(`{"token":"x\r\nX-Evil: 1"}`))
			return
		}
		if r.Header.Get("X-Evil") != "" {
			t.Error("the token became a header")
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	if err := pull(t, r, "a"); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

func TestDockerConfigComesBeforeECRsOwnTokens(t *testing.T) {
	c, _ := newTestClient(t, Config{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com", DockerConfig: "/none"})
	if registryOf(t, c, "123456789012.dkr.ecr.us-east-1.amazonaws.com").ECR() != nil {
		t.Error("it authenticates by the ECR API")
	}
}
