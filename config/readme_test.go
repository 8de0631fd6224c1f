package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
)

// The README shows these files of testdata.
func TestReadmeShowsValidConfigurations(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node.yaml", "accounts.yaml"} {
		file := filepath.Join("testdata", name)
		if _, err := config.Load(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for line := range strings.Lines(string(content)) {
			if line != "\n" {
				want.WriteString("    ")
			}
			want.WriteString(line)
		}
		if !strings.Contains(string(readme), want.String()) {
			t.Errorf("a configuration in README.md is not testdata/%s, indented by four spaces", name)
		}
	}
}
