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

// openStream opens what is at a path and is no regular file, such as a tape or a pipe: content is
// written into it, and a file must not take its place. It returns nil for the path of a file.
func openStream(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Mode().IsRegular():
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, usageError{fmt.Errorf("--output: %s is a folder: expected the name of a file", path)}
	}
	return os.OpenFile(path, os.O_WRONLY, 0)
}

// writeOutput writes content to standard output, into what [openStream] opens, or to a file.
func writeOutput(p *invocation, path string, content io.Reader) error {
	if path == standardStream {
		_, err := io.Copy(p.stdout, content)
		return err
	}
	stream, err := openStream(path)
	switch {
	case err != nil:
		return err
	case stream == nil:
		return replaceFile(path, content)
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
