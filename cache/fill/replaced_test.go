package fill // white-box: Publish is the last step of a fill

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
)

// Only the file that the fill wrote was verified.
func TestPartialThatWasReplacedIsNotPublished(t *testing.T) {
	const verified = "verified"
	for name, replace := range map[string]func(path string) error{
		"by another file": func(path string) error {
			return errors.Join(os.WriteFile(path+"-2", []byte("attacked"), 0o600), os.Rename(path+"-2", path))
		},
		"by a copy of it": func(path string) error {
			return errors.Join(os.WriteFile(path+"-2", []byte(verified), 0o600), os.Rename(path+"-2", path))
		},
		"by a link to another file": func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/proc/version", path))
		},
		"by a link to itself elsewhere": func(path string) error {
			return errors.Join(os.Rename(path, path+"-2"), os.Symlink(path+"-2", path))
		},
		"by a pipe":   func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
		"by a folder": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"by nothing":  os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			folder, d := openFolder(t, disk.Steps{}), digest.FromString(verified)
			p, err := CreatePartial(folder, d, int64(len(verified)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := p.write([]byte(verified), 0); err != nil {
				t.Fatal(err)
			}
			if err := replace(folder.Partial(d).Data); err != nil {
				t.Fatal(err)
			}
			if err := p.Publish(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is published: %v", err)
			}
			if _, err := os.Lstat(folder.Blob(d)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a blob is there: %v", err)
			}
		})
	}
}
