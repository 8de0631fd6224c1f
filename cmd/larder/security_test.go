package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The tests and files that proxy/SECURITY.md names exist.
func TestTestsThatTheDocumentOfSecurityNamesExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "proxy", "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	err = filepath.WalkDir(repository, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		all.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1)
	for _, name := range names {
		if !strings.Contains(all.String(), "func "+name[1]+"(") {
			t.Errorf("there is no %s", name[1])
		}
	}
	for _, file := range regexp.MustCompile("`([a-z/]+_test\\.go)`").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join(repository, file[1])); err != nil {
			t.Error(err)
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d tests are named", len(names))
	}
}
