package mirror

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
)

// serveTLS serves with a certificate, and returns the URL. Clients need a certificate of clients if
// that is not nil.
func serveTLS(t *testing.T, pair tlstest.Pair, clients *x509.CertPool, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair.Load(t)}}
	if clients != nil {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func TestCheckSaysWhatIsWrongWithCertificates(t *testing.T) {
	ca, stranger := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	fine := func(http.ResponseWriter, *http.Request) {}
	good := ca.Server(t, "server")
	expired := ca.Issue(t, "expired", time.Now().Add(-time.Hour), tlstest.Pair{}, "127.0.0.1")
	other := ca.Issue(t, "other", time.Now().Add(time.Hour), tlstest.Pair{}, "cache.example.internal")
	mine, foreign := ca.Server(t, "node"), stranger.Server(t, "node")
	files := func(ca string, client tlstest.Pair) TLS { return TLS{ca, client.Cert, client.Key} }
	open, closed := serveTLS(t, good, nil, fine), serveTLS(t, good, ca.Pool, fine)
	plain := httptest.NewServer(http.HandlerFunc(fine))
	t.Cleanup(plain.Close)
	for name, test := range map[string]struct {
		url  string
		tls  TLS
		want string // "" if all is well
	}{
		"right":                            {open, files(ca.File, tlstest.Pair{}), ""},
		"right, with a client certificate": {closed, files(ca.File, mine), ""},
		"no authority":                     {open, TLS{}, "with --ca, and run larder mirror"},
		"another authority":                {open, files(stranger.File, tlstest.Pair{}), "not of the authority in " + stranger.File},
		"an authority that is not there":   {open, files("/nowhere/ca.crt", tlstest.Pair{}), "/nowhere/ca.crt"},
		"an authority that is a key":       {open, files(good.Key, tlstest.Pair{}), good.Key + " has no certificate"},
		"expired":                          {serveTLS(t, expired, nil, fine), files(ca.File, tlstest.Pair{}), "replace the files of tls"},
		"another name":                     {serveTLS(t, other, nil, fine), files(ca.File, tlstest.Pair{}), "cache.example.internal"},
		"no client certificate":            {closed, files(ca.File, tlstest.Pair{}), "--client-cert and --client-key"},
		"a foreign client certificate":     {closed, files(ca.File, foreign), "refuses the certificate of --client-cert"},
		"the key of another":               {closed, files(ca.File, tlstest.Pair{Cert: mine.Cert, Key: foreign.Key}), "does not match"},
		"plain HTTP there":                 {"https" + strings.TrimPrefix(plain.URL, "http"), TLS{}, "begin with http://"},
		"TLS there":                        {"http" + strings.TrimPrefix(open, "https"), TLS{}, "begin with https://"},
	} {
		t.Run(name, func(t *testing.T) {
			f := checkAnswer(t.Context(), Mirror{URL: test.url, TLS: test.tls})
			if text := f.What + "\n" + f.Advice; f.OK != (test.want == "") || !strings.Contains(text, test.want) {
				t.Errorf("%v %s\nwant %q", f.OK, text, test.want)
			}
		})
	}
}

func TestCheckSendsTheNodesPasswordAndShowsItNowhere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "node" || password != "hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="larder"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	for content, want := range map[string]string{"": "with --credentials", "node:hunter3": "refuses the user name", "node:hunter2\n": ""} {
		m := Mirror{URL: server.URL}
		if content != "" {
			file := filepath.Join(t.TempDir(), "password")
			write(t, file, content)
			var err error
			if m.Authorization, err = ReadCredentials(file); err != nil {
				t.Fatal(err)
			}
		}
		f := checkAnswer(t.Context(), m)
		text := f.What + f.Advice
		if f.OK != (want == "") || !strings.Contains(text, want) || strings.Contains(text, "hunter") || m.Authorization != "" && strings.Contains(text, m.Authorization[6:]) {
			t.Errorf("%q: %v %s, want %q", content, f.OK, text, want)
		}
	}
}

func TestFileThatHasNoPasswordIsRefusedWithoutShowingIt(t *testing.T) {
	for _, content := range []string{"", "hunter2", ":hunter2", "node:hunter2\nother:hunter2\n", "node:hunter2\x1b[2J", strings.Repeat("hunter2:", 1000)} {
		file := filepath.Join(t.TempDir(), "password")
		write(t, file, content)
		if got, err := ReadCredentials(file); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.20q: %q, %v", content, got, err)
		}
	}
}

// secured is a mirror with everything that HTTPS and passwords need.
var secured = Mirror{
	URL: "https://cache.example.internal:5000", Registries: []string{"docker.io"}, Containerd: Version{2, 2}, Authorization: "Basic bm9kZTpodW50ZXIy",
	TLS: TLS{CA: "/etc/larder/ca.crt", ClientCert: "/etc/larder/node.crt", ClientKey: "/etc/larder/node.key"},
}

// The settings of a host as containerd's docs/hosts.md has them.
type hostSettings struct {
	CA     string              `toml:"ca"`
	Client [][]string          `toml:"client"`
	Header map[string][]string `toml:"header"`
}

func (h hostSettings) areThoseOf(m Mirror) bool {
	return h.CA == m.TLS.CA && len(h.Client) == 1 && slices.Equal(h.Client[0], []string{m.TLS.ClientCert, m.TLS.ClientKey}) &&
		slices.Equal(h.Header["Authorization"], []string{m.Authorization})
}

func TestHostsFileHasWhatContainerdNeedsForHTTPS(t *testing.T) {
	for name, before := range map[string]string{"new": "", "merged": foreignFile} {
		for _, only := range []bool{false, true} {
			dir := t.TempDir()
			path := filepath.Join(dir, "docker.io", "hosts.toml")
			if before != "" {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, path, before)
			}
			m := secured
			m.Only = only
			install(t, dir, m)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var file struct {
				hostSettings
				Host map[string]hostSettings `toml:"host"`
			}
			if err := toml.Unmarshal(text, &file); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if !file.Host[m.URL].areThoseOf(m) || only && !file.areThoseOf(m) {
				t.Errorf("%s, only %t:\n%s", name, only, text)
			}
		}
	}
}

func TestHostsFileWithAPasswordIsForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "docker.io", "hosts.toml")
	mode := func() os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	install(t, dir, secured)
	if got := mode(); got != 0o600 {
		t.Errorf("mode %o", got)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if all := checkFiles(secured, dir); len(all) != 1 || all[0].OK || !strings.Contains(all[0].What, "can be read by everybody") {
		t.Errorf("%+v", all)
	}
	install(t, dir, secured)
	if got := mode(); got != 0o600 {
		t.Errorf("after it was opened and written again: mode %o", got)
	}
	without := secured
	without.Authorization = ""
	install(t, dir, without)
	if got := mode(); got != 0o644 {
		t.Errorf("without a password: mode %o", got)
	}
}

func TestSnippetsForHTTPSHaveItsFilesAndNoPassword(t *testing.T) {
	for _, runtime := range Runtimes() {
		text, err := Snippet(secured, runtime, "/etc/containerd/certs.d")
		if runtime == "docker" || runtime == "bottlerocket" {
			if err == nil {
				t.Errorf("%s takes a password", runtime)
			}
			m := secured
			m.Authorization = ""
			if runtime == "bottlerocket" {
				m.TLS.ClientCert, m.TLS.ClientKey = "", ""
			}
			text, err = Snippet(m, runtime, "/etc/containerd/certs.d")
		}
		if err != nil {
			t.Errorf("%s: %v", runtime, err)
			continue
		}
		if strings.Contains(text, "bm9kZ") || strings.Contains(text, "hunter2") {
			t.Errorf("%s shows the password:\n%s", runtime, text)
		}
		if runtime != "nodeadm" && !strings.Contains(text, secured.TLS.CA) {
			t.Errorf("%s does not name the authority:\n%s", runtime, text)
		}
	}
	var file struct {
		Registry map[string]struct {
			CA      []string            `toml:"ca"`
			Keypair []map[string]string `toml:"keypair"`
		} `toml:"registry"`
	}
	text, err := Snippet(secured, "buildkit", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := toml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := file.Registry["cache.example.internal:5000"]; len(got.CA) != 1 || len(got.Keypair) != 1 || got.Keypair[0]["key"] != secured.TLS.ClientKey {
		t.Errorf("%+v\n%s", got, text)
	}
}
