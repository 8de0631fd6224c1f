// Package manuals makes the files of a release that larder's own commands print: the manual page and the completions of
// shells.
package manuals

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The files that Write makes.
const (
	Page = "larder.1.gz"
	Bash = "larder.bash"
	Zsh  = "_larder"
	Fish = "larder.fish"
)

// Write makes the files in dir with the larder of the checkout at root, which it compiles for this machine. The version is the one that the
// manual page names. The files depend on the checkout and the version alone.
func Write(ctx context.Context, root, version, dir string) error {
	larder := filepath.Join(dir, ".larder")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+version, "-o", larder, "./cmd/larder")
	build.Dir, build.Stderr = root, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	if err := build.Run(); err != nil {
		return fmt.Errorf("build larder for its manual page: %w", err)
	}
	defer func() { _ = os.Remove(larder) }()
	for name, args := range map[string][]string{
		Page: {"man"},
		Bash: {"completion", "bash"},
		Zsh:  {"completion", "zsh"},
		Fish: {"completion", "fish"},
	} {
		text, err := exec.CommandContext(ctx, larder, args...).Output()
		if err != nil {
			return fmt.Errorf("larder %s: %w", args[0], err)
		}
		if name == Page {
			if text, err = Compress(text); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Compress returns text in gzip's form, without a name or a time.
func Compress(text []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
