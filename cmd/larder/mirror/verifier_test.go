package mirror

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerifierIsThatOfContainerdsConfiguration(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o750); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := write(filepath.Join(dir, "larder"), "#!/bin/sh\n", 0o700)
	if err := os.Symlink(program, filepath.Join(bin, "larder-verify")); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(bin, "text"), "", 0o600)
	plugin := "version = 3\n[plugins.'" + verifierPlugin + "']\n  bin_dir = '" + bin + "'\n"
	for _, c := range []struct{ name, config, verifier, wrong string }{
		{name: "a link to a program", config: plugin, verifier: "larder-verify"},
		{name: "no such program", config: plugin, verifier: "other", wrong: "no image verifier " + bin + "/other"},
		{name: "a file that cannot be run", config: plugin, verifier: "text", wrong: "not a program"},
		{name: "no folder is named", config: "version = 3\n", verifier: "larder-verify", wrong: "no image verifier " + defaultVerifiers},
		{
			name: "the plugin for the kubelet pulls by itself", verifier: "larder-verify", wrong: "discard_unpacked_layers = true",
			config: plugin + "[plugins.'" + imagesPlugin + "']\n  discard_unpacked_layers = true\n",
		},
		{name: "no configuration", config: "plugins = 1", verifier: "larder-verify", wrong: "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, err := Verifier(write(filepath.Join(t.TempDir(), "config.toml"), c.config, 0o600), c.verifier)
			switch {
			case c.wrong == "" && (err != nil || path != filepath.Join(bin, c.verifier)):
				t.Errorf("%q, %v", path, err)
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("%q, %v, want an error with %q", path, err, c.wrong)
			}
		})
	}
	if _, err := Verifier(filepath.Join(dir, "none.toml"), "larder-verify-of-no-one"); err == nil || !strings.Contains(err.Error(), defaultVerifiers) {
		t.Errorf("without a configuration: %v", err)
	}
}
