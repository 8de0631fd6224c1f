package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestStrangeManifestsAreReadOrRefusedInTime(t *testing.T) {
	t.Parallel()
	const pod = "spec: {containers: [{image: a:1}]}\n"
	bomb := "a0: &a0 {containers: [{image: a:1}]}\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 9))
	}
	for name, c := range map[string]struct {
		text, want string // the image, or of the error
	}{
		"a bomb of aliases":                  {bomb, "excessive aliasing"},
		"an alias of itself":                 {"a: &a [*a]\n", "contains itself"},
		"an alias of nothing":                {"a: *b\n", "unknown anchor"},
		"a list in a list, 100,000 deep":     {strings.Repeat("[", 100_000), "depth"},
		"a map in a map, 100,000 deep":       {strings.Repeat("{a: ", 100_000), "depth"},
		"a list by dashes, 20,000 deep":      {strings.Repeat("- ", 20_000) + "a", "depth"},
		"half a document":                    {pod + "---\nspec: {", "did not find"},
		"a key that is a list":               {"? [a]\n: 1\n", "invalid map key"},
		"a key that is a number":             {"1: {" + strings.TrimSpace(pod) + "}\n", "a:1"},
		"a key that is null":                 {"null: {" + strings.TrimSpace(pod) + "}\n", "a:1"},
		"a merged map":                       {"a: &a {image: a:1}\nspec: {containers: [{<<: *a}]}\n", "a:1"},
		"a map that merges itself":           {"a: &a {<<: *a}\n", "contains itself"},
		"a text that is a megabyte":          {pod + "x: " + strings.Repeat("x", 1<<20) + "\n", "a:1"},
		"a binary":                           {"\x7fELF\x02\x01\x01\x00", "control characters"},
		"UTF-16 that is cut":                 {"\xff\xfea", "incomplete"},
		"UTF-8 that is none":                 {"a: \xff\xfe\n", "invalid"},
		"containers that are a text":         {"spec: {containers: a:1}\n", errNoPods.Error()},
		"an image that is a list":            {"spec: {containers: [{image: [a:1]}]}\n", errNoPods.Error()},
		"a tag of a type that is not here":   {"spec: {containers: [{image: !go/struct a:1}]}\n", "a:1"},
		"a date, an infinity and a hex":      {pod + "x: [2001-01-01, .inf, 0xffffffffffffffffff]\n", "a:1"},
		"a hundred thousand empty documents": {strings.Repeat("---\n", 100_000) + pod, "a:1"},
	} {
		images, err := imagesOfPods(strings.NewReader(c.text))
		got := strings.Join(images, " ")
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || len(got) > 1000 {
			t.Errorf("%s: %.300s", name, got)
		}
	}
}

// A list may have any number of lines, and none of them an image.
func TestLongListsAreReadInTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var good, bad strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&good, "registry.test/team/app:%d\n", i%20_000)
		fmt.Fprintf(&bad, "registry.test/%%%d\n", i)
	}
	for name, content := range map[string]string{"good": good.String(), "bad": bad.String(), "line": strings.Repeat("a", 1<<20)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, wrong, err := (&warmCommand{File: []string{filepath.Join(dir, "good")}}).names(new(invocation))
	if err != nil || wrong != nil || len(names) != 20_000 {
		t.Errorf("%d names, %v, %v", len(names), wrong, err)
	}
	names, wrong, err = (&warmCommand{File: []string{filepath.Join(dir, "bad")}}).names(new(invocation))
	if err != nil || wrong == nil || len(names) != 0 || strings.Count(wrong.Error(), "\n") != 39_999 {
		t.Errorf("%d names, %v", len(names), err)
	}
	if _, _, err = (&warmCommand{File: []string{filepath.Join(dir, "line")}}).names(new(invocation)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a line of a megabyte: %v", err)
	}
	if _, _, err = (&warmCommand{File: []string{dir}}).names(new(invocation)); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a folder: %v", err)
	}
}

// An empty host stands for all upstreams in the API, and for a variable that is not set in a shell.
func TestEmptyHostIsNotAllUpstreams(t *testing.T) {
	for _, hosts := range [][]string{{""}, {"docker.io", ""}} {
		var usage usageError
		if err := (&upstreams{Hosts: hosts}).set(new(invocation), "PUT", "offline"); !errors.As(err, &usage) {
			t.Errorf("%q: %v", hosts, err)
		}
	}
}

// What is beside the configuration may be anything.
func TestStrangeEnvironmentFilesAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "larder.env")
	for name, make := range map[string]func() error{
		"a pipe":    func() error { return syscall.Mkfifo(file, 0o600) },
		"a folder":  func() error { return os.Mkdir(file, 0o700) },
		"a loop":    func() error { return os.Symlink(file, file) },
		"a device":  func() error { return os.Symlink("/dev/zero", file) },
		"megabytes": func() error { return os.WriteFile(file, []byte(strings.Repeat("LARDER_X=1\n", 200_000)), 0o600) },
		"a binary":  func() error { return os.WriteFile(file, []byte("LARDER_X=a\x00b\n"), 0o600) },
		"a quote":   func() error { return os.WriteFile(file, []byte("LARDER_X=secret\nLARDER_Y='secret"), 0o600) },
	} {
		if err := errors.Join(os.RemoveAll(file), make()); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		p := &invocation{env: []string{"A=1"}, stderr: &said, verbose: true}
		settings{}.readEnvFile(p, file)
		if !slices.Equal(p.environ(), []string{"A=1"}) || strings.Contains(said.String(), "secret") || said.Len() == 0 {
			t.Errorf("%s: %.100q, said %q", name, p.environ(), said.String())
		}
	}
}
