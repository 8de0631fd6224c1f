package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/config"
)

var update = flag.Bool("update", false, "write the messages of testdata/mistakes anew")

// Each file in testdata/mistakes has one kind of mistake. The file beside it has the
// exact messages.
func TestMistakesAreReportedWithFileLineAndKey(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "mistakes"))
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			c, err := config.Load(file)
			var mistakes config.Mistakes
			if !errors.As(err, &mistakes) || c != nil {
				t.Fatalf("Load = %+v, %v; want only Mistakes", c, err)
			}
			got, golden := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecretsAreNotRepeatedInMistakes(t *testing.T) {
	goldens, err := filepath.Glob(filepath.Join("testdata", "mistakes", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, golden := range goldens {
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "hunter2") {
			t.Errorf("%s shows a password", golden)
		}
	}
}

func TestUnreadableFilesAreMistakes(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, problem string }{
		"missing":   {filepath.Join(dir, "none.yaml"), "reading the configuration: no such file or directory"},
		"a folder":  {dir, "reading the configuration: is a directory"},
		"too large": {large, "reading the configuration: expected at most 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			// A default upstream that the file could make valid is not reported.
			_, err := config.Load(test.path,
				config.Override{Key: "default_upstream", Value: "ghcr.io", Source: "--default-upstream"},
				config.Override{Key: "tags.ttl", Value: "soon", Source: "--tags-ttl"})
			want := config.Mistakes{
				{File: test.path, Problem: test.problem},
				{File: "--tags-ttl", Key: "tags.ttl", Problem: `expected a duration such as 90s or 12h, got "soon"`},
			}
			if diff := cmp.Diff(error(want), err); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}
