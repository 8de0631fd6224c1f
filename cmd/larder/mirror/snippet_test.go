package mirror

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestSnippets(t *testing.T) {
	mirrors := map[string]Mirror{
		"some": {URL: larder, Registries: []string{"docker.io", "123456789012.dkr.ecr.eu-central-1.amazonaws.com"}},
		"all":  {URL: "https://larder.example:5443", Registries: []string{"docker.io"}, Default: true},
	}
	for _, runtime := range Runtimes() {
		for name, m := range mirrors {
			t.Run(runtime+" "+name, func(t *testing.T) {
				got, err := m.Snippet(runtime, "/etc/containerd/certs.d")
				if err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", runtime+"-"+name+".txt")
				if *update {
					write(t, golden, got)
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", golden, diff)
				}
			})
		}
	}
}

func TestSnippetRefusesWhatTheRuntimeCannotBeTold(t *testing.T) {
	m := Mirror{URL: larder, Default: true}
	for runtime, want := range map[string]error{"podman": ErrNoRegistries, "crio": ErrNoRegistries, "buildkit": ErrNoRegistries, "k3s": nil} {
		if _, err := m.Snippet(runtime, "/certs.d"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", runtime, err, want)
		}
	}
	m.Registries = []string{"registry.example:5000"}
	if text, err := m.Snippet("podman", "/certs.d"); err == nil {
		t.Errorf("podman cannot read this:\n%s", text)
	}
	if _, err := m.Snippet("rkt", "/certs.d"); err == nil {
		t.Error("there is a snippet for a runtime that is not known")
	}
}
