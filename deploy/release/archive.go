package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/larder-registry/larder/deploy/internal/manuals"
)

// writeArchive writes the archive of a binary and its documents, all of them in one folder.
func (r *release) writeArchive(path, folder, binary string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	packed := gzip.NewWriter(file) // without a name and a time
	archive := tar.NewWriter(packed)
	for _, f := range []struct {
		name, source string
		mode         int64
	}{
		{"larder", binary, 0o755},
		{"LICENSE", filepath.Join(r.Root, "LICENSE"), 0o644},
		{"README.md", filepath.Join(r.Root, "README.md"), 0o644},
		{"CHANGELOG.md", filepath.Join(r.Root, "CHANGELOG.md"), 0o644},
		{manuals.Page, filepath.Join(r.manuals, manuals.Page), 0o644},
		{"completion/" + manuals.Bash, filepath.Join(r.manuals, manuals.Bash), 0o644},
		{"completion/" + manuals.Zsh, filepath.Join(r.manuals, manuals.Zsh), 0o644},
		{"completion/" + manuals.Fish, filepath.Join(r.manuals, manuals.Fish), 0o644},
	} {
		content, err := os.ReadFile(f.source)
		if err != nil {
			return err
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: folder + "/" + f.name, Mode: f.mode, Size: int64(len(content)), ModTime: r.stamp, Format: tar.FormatPAX,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), packed.Close())
}

// writeChecksums writes the SHA-256 of every file of the release, in the form that "sha256sum --check" reads.
func (r *release) writeChecksums() error {
	entries, err := os.ReadDir(r.Out) // sorted
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		file, err := os.Open(filepath.Join(r.Out, e.Name()))
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", hash.Sum(nil), e.Name())
	}
	return os.WriteFile(filepath.Join(r.Out, "checksums.txt"), []byte(sums.String()), 0o600)
}
