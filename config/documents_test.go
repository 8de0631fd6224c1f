package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
)

// The documents show these files of testdata.
func TestDocumentsShowValidConfigurations(t *testing.T) {
	for name, document := range map[string]string{"node.yaml": "configuration.md", "accounts.yaml": "ecr.md"} {
		text, err := os.ReadFile(filepath.Join("..", "deploy", "docs", document))
		if err != nil {
			t.Fatal(err)
		}
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
		if !strings.Contains(string(text), want.String()) {
			t.Errorf("a configuration in %s is not testdata/%s, indented by four spaces", document, name)
		}
	}
}
