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

// A process whose standard output is a file finds it as a link, /dev/stdout. As root, a file could take the place of that.
func TestOutputThroughALinkLeavesTheLink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	for path, target := range map[string]string{link: file, filepath.Join(dir, "dangling"): filepath.Join(dir, "none")} {
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, file, "before")
	write := func(name string, p *invocation, content, want string) {
		t.Helper()
		if err := writeOutput(p, link, strings.NewReader(content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: the file has %q, %v", name, got, err)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Fatalf("%s: the link became %v, %v", name, info.Mode(), err)
		}
	}
	write("a file", &invocation{}, "content", "content")
	stdout, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	write("standard output", &invocation{stdout: stdout}, " and more", "content and more")
	write("standard output elsewhere", &invocation{stdout: os.Stderr}, "content", "content")
	if err := writeOutput(&invocation{}, filepath.Join(dir, "dangling"), strings.NewReader("content")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that leads nowhere: %v", err)
	}
}
