package daemon

import (
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/larder-registry/larder/upstream/privatetest"
)

// leak is a daemon in front of a registry where alice may pull image A of team/a, bob may pull image B of team/b, and
// carol both. Image C is in neither repository.
type leak struct {
	*guarded
	a, b, c v1.Image
}

func serveLeak(t *testing.T, hides bool) *leak {
	t.Helper()
	registry := privatetest.Start(t, false)
	if hides {
		registry.Hide()
	}
	registry.AddUser("alice", "alice's password", "team/a")
	registry.AddUser("bob", "bob's password", "team/b")
	registry.AddUser("carol", "carol's password", "team/a", "team/b")
	l := &leak{
		a: registry.Push(t, "team/a", "v1", 100_000), b: registry.Push(t, "team/b", "v1", 100_000), c: registry.Push(t, "team/c", "v1", 100_000),
	}
	l.guarded = serveGuarded(t, registry, t.TempDir(), "")
	return l
}

// pull has carol pull images A and B whole, so that both are cached.
func (l *leak) pull(t *testing.T) {
	t.Helper()
	for repository, image := range map[string]v1.Image{"team/a": l.a, "team/b": l.b} {
		for kind, path := range l.paths(t, repository, image) {
			if status, body := privatetest.Get(t, http.MethodGet, l.url, path, "carol", "carol's password"); status != http.StatusOK {
				t.Fatalf("%s of %s: %d %s", kind, repository, status, body)
			}
		}
	}
}

// states are how much of the images is cached when somebody asks in vain. Each returns what ends it.
func (l *leak) states() map[string]func(t *testing.T) (end func()) {
	nothing := func() {}
	return map[string]func(*testing.T) func(){
		"not cached": func(*testing.T) func() { return nothing },
		"cached":     func(t *testing.T) func() { l.pull(t); return nothing },
		"half evicted": func(t *testing.T) func() {
			l.pull(t)
			for _, image := range []v1.Image{l.a, l.b} {
				layer := digestIn(l.paths(t, "x", image)["layer"])
				l.removeFile(t, layer)
			}
			return nothing
		},
		"filling": func(t *testing.T) func() {
			var ends []func()
			for repository, image := range map[string]v1.Image{"team/a": l.a, "team/b": l.b} {
				path := l.paths(t, repository, image)["layer"]
				held := l.registry.Hold(strings.TrimSuffix(path, "?ns="+l.registry.Host))
				got := make(chan privatetest.Reply)
				go func() { got <- l.ask(t, privatetest.Request{Method: http.MethodGet, URL: path, User: "carol"}) }()
				<-held.Begun
				ends = append(ends, func() {
					held.Release()
					if r := <-got; r.Status != http.StatusOK || r.Err != nil || !strings.HasSuffix(r.Body, " bytes") {
						t.Errorf("carol: %+v", r)
					}
				})
			}
			return func() {
				for _, end := range ends {
					end()
				}
			}
		},
	}
}

// removeFile removes a blob's file, as an eviction does.
func (l *leak) removeFile(t *testing.T, digest string) {
	t.Helper()
	for len(l.daemon.proxy.Fills()) > 0 { // the file gets its name after its clients have the last byte
		<-time.After(time.Millisecond)
	}
	removed := 0
	err := filepath.WalkDir(filepath.Join(l.dir, "cache", "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == digest {
			removed++
			return os.Remove(path)
		}
		return err
	})
	if err != nil || removed != 1 {
		t.Fatalf("%d files of %s are removed: %v", removed, digest, err)
	}
}

// ask sends a request to the daemon, with the password of its user unless it has another one.
func (l *leak) ask(t *testing.T, r privatetest.Request) privatetest.Reply {
	t.Helper()
	r.URL = l.url + r.URL
	if r.Password == "" {
		r.Password = r.User + "'s password"
	}
	return privatetest.Ask(t, r)
}

var hexDigest = regexp.MustCompile("[0-9a-f]{64}")

func digestIn(path string) string { return hexDigest.FindString(path) }

// tell is all that an answer tells, without what its client has named itself.
func tell(path string, r privatetest.Reply) string {
	header := maps.Clone(r.Header)
	delete(header, "Date")
	text := fmt.Sprint(r.Status, header, r.Body, r.Err)
	words := regexp.MustCompile(`^/v2/(team/\w+)/\w+/([^?]*)`).FindStringSubmatch(path)
	for _, asked := range []string{words[2], words[1]} {
		if len(asked) > 1 {
			text = strings.ReplaceAll(text, asked, "ASKED")
		}
	}
	return regexp.MustCompile(`Content-Length:\[\d+\]`).ReplaceAllString(text, "") // it has the length of the name
}

// A client asks in vain: for an image of another repository, in its own repository for an image that is not there but is
// cached, and with wrong credentials or none. The answer is the one to a question about what does not exist.
func TestNothingTellsWhatIsCachedToAClientThatMayNotHaveIt(t *testing.T) {
	for _, hides := range []bool{false, true} {
		for _, state := range slices.Sorted(maps.Keys(new(leak).states())) {
			t.Run(fmt.Sprintf("%s/hides=%t", state, hides), func(t *testing.T) {
				l := serveLeak(t, hides)
				end := l.states()[state](t)
				asks := 0
				same := func(user, password, path, other string) {
					t.Helper()
					for _, r := range []privatetest.Request{{Method: http.MethodGet}, {Method: http.MethodHead}, {Method: http.MethodGet, Range: "bytes=0-9"}} {
						r.User, r.Password = user, password
						r.URL = path
						got := l.ask(t, r)
						r.URL = other
						want := l.ask(t, r)
						asks++
						if got.Status < 400 || got.Status >= 500 || tell(path, got) != tell(other, want) || strings.Contains(tell(path, got), "sha256:") {
							t.Errorf("%s %s of %q gets\n%s\nand for %s, which does not exist,\n%s", r.Method, path, user, tell(path, got), other, tell(other, want))
						}
					}
				}
				l.askInVain(t, same)
				if asks < 30 {
					t.Errorf("%d requests were compared", asks)
				}
				end()
			})
		}
	}
}

// askInVain calls same for each path that a user may not have, and one like it that does not exist.
func (l *leak) askInVain(t *testing.T, same func(user, password, path, other string)) {
	t.Helper()
	missing := func(repository string) map[string]string { return l.paths(t, repository, l.c) }
	for kind, path := range l.paths(t, "team/a", l.a) { // a repository that the client may not have, and one that does not exist
		for user, password := range map[string]string{"bob": "", "alice": "wrong", "mallory": "x", privatetest.Anonymous: ""} {
			same(user, password, path, missing("team/none")[kind])
			if kind != "tags" && kind != "tag" {
				same(user, password, path, missing("team/a")[kind])
			}
		}
	}
	for user, one := range map[string]struct {
		own   string
		other v1.Image
	}{"alice": {"team/a", l.b}, "bob": {"team/b", l.a}} { // its own repository, which does not have the image
		for _, kind := range []string{"digest", "layer"} {
			same(user, "", l.paths(t, one.own, one.other)[kind], missing(one.own)[kind])
		}
	}
}
