package config

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeShowsAValidConfiguration holds the README to testdata/node.yaml,
// which is read by the tests of Load.
func TestReadmeShowsAValidConfiguration(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	node, err := os.ReadFile("testdata/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for line := range strings.Lines(string(node)) {
		if line != "\n" {
			want.WriteString("    ")
		}
		want.WriteString(line)
	}
	if !strings.Contains(string(readme), want.String()) {
		t.Error("the configuration in README.md is not testdata/node.yaml, indented by four spaces")
	}
}
