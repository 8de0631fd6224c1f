package cachetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// IndexDamages returns what may happen to the folder of an index while no process has it open.
// Such an index is rebuilt from its snapshot.
func IndexDamages() map[string]func(dir string) error {
	return map[string]func(dir string) error{
		"deleted":                 os.RemoveAll,
		"emptied":                 func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
		"a file in its place":     func(dir string) error { return errors.Join(os.RemoveAll(dir), Noise(dir)) },
		"no list of tables":       EachFile("MANIFEST", os.Remove),
		"a torn list of tables":   EachFile("MANIFEST", Truncate(20)),
		"an empty list of tables": EachFile("MANIFEST", Truncate(0)),
		"a list of noise":         EachFile("MANIFEST", Noise),
		"no tables":               EachFile("*.sst", os.Remove),
		"empty tables":            EachFile("*.sst", Truncate(0)),
		"torn tables":             EachFile("*.sst", Truncate(100)),
		"tables of noise":         EachFile("*.sst", Noise),
		"a log of noise":          EachFile("*.vlog", Noise),
		"keys of noise":           EachFile("KEYREGISTRY", Noise),
		"statistics of noise":     EachFile("DISCARD", Noise),
		"nothing but noise":       EachFile("*", Noise),
	}
}

// EachFile returns a function that damages each file of a folder that matches a pattern, of
// which there must be one.
func EachFile(pattern string, damage func(path string) error) func(dir string) error {
	return func(dir string) error {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if len(paths) == 0 {
			err = errors.Join(err, fmt.Errorf("there is no %s", pattern))
		}
		for _, path := range paths {
			err = errors.Join(err, damage(path))
		}
		return err
	}
}

// Truncate returns a function that makes a file so many bytes long.
func Truncate(n int64) func(string) error {
	return func(path string) error { return os.Truncate(path, n) }
}

// Noise makes a file one without meaning.
func Noise(path string) error {
	return os.WriteFile(path, bytes.Repeat([]byte("noise"), 100), 0o600)
}
