package mirror

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"
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
				got, err := Snippet(m, runtime, "/etc/containerd/certs.d")
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

// A snippet must be in the runtime's own format and name the mirror; that of nodeadm names containerd's folder.
func TestSnippetsParseAsTheRuntimesConfiguration(t *testing.T) {
	m := Mirror{URL: larder, Registries: []string{"docker.io", "quay.io"}, Default: true}
	for runtime, read := range map[string]func([]byte, any) error{
		"buildkit": toml.Unmarshal, "podman": toml.Unmarshal, "crio": toml.Unmarshal, "bottlerocket": toml.Unmarshal,
		"k3s": yaml.Unmarshal, "nodeadm": readNodeConfig, "docker": readDaemonJSON,
	} {
		text, err := Snippet(m, runtime, "/certs.d")
		if err != nil {
			t.Fatal(err)
		}
		var value map[string]any
		if err := read([]byte(text), &value); err != nil {
			t.Errorf("%s: %v\n%s", runtime, err, text)
		}
		if said := fmt.Sprint(value); !strings.Contains(said, "127.0.0.1:5000") && !strings.Contains(said, "/certs.d") {
			t.Errorf("%s: what is read is %s", runtime, said)
		}
	}
}

// readNodeConfig reads containerd's configuration inside nodeadm's.
func readNodeConfig(text []byte, v any) error {
	var node struct {
		Spec struct{ Containerd struct{ Config string } }
	}
	if err := yaml.Unmarshal(text, &node); err != nil {
		return err
	}
	return toml.Unmarshal([]byte(node.Spec.Containerd.Config), v)
}

// readDaemonJSON reads the JSON between the comments.
func readDaemonJSON(text []byte, v any) error {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return json.Unmarshal([]byte(b.String()), v)
}

func TestSnippetRefusesRegistriesTheRuntimeCannotName(t *testing.T) {
	m := Mirror{URL: larder, Default: true}
	for runtime, want := range map[string]error{"podman": ErrNoRegistries, "crio": ErrNoRegistries, "buildkit": ErrNoRegistries, "k3s": nil} {
		if _, err := Snippet(m, runtime, "/certs.d"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", runtime, err, want)
		}
	}
	m.Registries = []string{"registry.example:5000"}
	if text, err := Snippet(m, "podman", "/certs.d"); err == nil {
		t.Errorf("podman cannot read this:\n%s", text)
	}
	m = Mirror{URL: "http://[::1]:5000", Registries: []string{"docker.io"}}
	if text, err := Snippet(m, "podman", "/certs.d"); err == nil {
		t.Errorf("podman cannot read this:\n%s", text)
	}
	if _, err := Snippet(m, "rkt", "/certs.d"); err == nil {
		t.Error("there is a snippet for a runtime that is not known")
	}
}
