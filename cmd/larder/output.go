package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// standardStream is the name of a file that stands for standard output, or standard input.
const standardStream = "-"

// partialOf is what a file is called until it is complete.
func partialOf(path string) string { return path + ".partial" }

// outputOf tells what is at the path of an output. A regular file, or none, is replaced, by the
// returned name: a link to a file stays, and the file that it leads to is replaced. Everything
// else, such as a tape or a pipe, is opened, and content is written into it. A link such as
// /dev/stdout to where standard output goes is standard output.
func outputOf(p *invocation, path string) (stream io.WriteCloser, file string, err error) {
	if path == standardStream {
		return nopCloser{p.stdout}, "", nil
	}
	link, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, nil
	}
	if err != nil {
		return nil, "", err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, "", err // a link that leads to nothing
	case info.IsDir():
		return nil, "", usageError{fmt.Errorf("--output: %s is a folder: expected the name of a file", path)}
	case link.Mode().IsRegular():
		return nil, path, nil
	case link.Mode().Type() == fs.ModeSymlink && isStandardOutput(p, info):
		return nopCloser{p.stdout}, "", nil
	case info.Mode().IsRegular():
		file, err := filepath.EvalSymlinks(path)
		return nil, file, err
	}
	stream, err = os.OpenFile(path, os.O_WRONLY, 0)
	return stream, "", err
}

// isStandardOutput reports whether standard output goes to a file.
func isStandardOutput(p *invocation, file fs.FileInfo) bool {
	stdout, ok := p.stdout.(*os.File)
	if !ok {
		return false
	}
	info, err := stdout.Stat()
	return err == nil && os.SameFile(info, file)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// writeOutput writes content to where [outputOf] says.
func writeOutput(p *invocation, path string, content io.Reader) error {
	stream, file, err := outputOf(p, path)
	switch {
	case err != nil:
		return err
	case stream == nil:
		return replaceFile(file, content)
	}
	_, err = io.Copy(stream, content)
	return errors.Join(err, stream.Close())
}

// replaceFile writes a file that appears once it is complete.
func replaceFile(path string, content io.Reader) error {
	file, err := os.Create(partialOf(path))
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, content); err != nil {
		return errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return complete(file, path)
}

// complete makes a file durable, closes it and gives it its name.
func complete(file *os.File, path string) error {
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = dir.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) { // not every file system can
		return nil
	}
	return err
}
