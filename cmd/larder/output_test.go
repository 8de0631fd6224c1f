package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// As root, a file could take the place of /dev/null.
func TestOutputIsWrittenIntoAPipeAndNotInItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // both ends, so that nothing waits for the other
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := writeOutput(&invocation{}, path, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Fatalf("a pipe became %v, %v", info.Mode(), err)
	}
	read := make([]byte, 100)
	if n, err := pipe.Read(read); err != nil || string(read[:n]) != "content" {
		t.Errorf("the pipe has %q, %v", read[:n], err)
	}
}

func TestOutputReplacesAFileAndNoFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first", "2nd"} {
		if err := writeOutput(&invocation{}, path, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("the file has %q, %v", got, err)
		}
	}
	err := writeOutput(&invocation{}, dir, strings.NewReader("content"))
	if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	if left, err := filepath.Glob(dir + "*.partial"); len(left) > 0 || err != nil {
		t.Errorf("%v are left behind, %v", left, err)
	}
}
