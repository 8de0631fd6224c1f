package cache

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

// folderVersion is what the names and the content of files under blobs/ and
// partial/ mean. It changes only where an older Larder would take them for
// something else: then it must not touch them. The index and its snapshot have
// versions of their own, and may be thrown away.
const folderVersion = 1

const versionText = "larder-cache %d\n"

func (l layout) version() string { return filepath.Join(l.dir, "larder.version") }

// claim makes sure that this Larder can read the folder, and marks it. A version
// that cannot be read, as a crash may leave it, is made anew.
func (l layout) claim(log *slog.Logger) error {
	switch version, err := l.readVersion(); {
	case err != nil:
		return fmt.Errorf("read the version of the cache folder: %w", err)
	case version > folderVersion:
		return fmt.Errorf("the cache folder %s has version %d, and this Larder knows version %d: use the newer Larder that made it, or another folder",
			l.dir, version, folderVersion)
	case version == folderVersion:
		return nil
	}
	f, err := l.disk.create(l.version(), os.O_WRONLY|os.O_TRUNC, 0o640)
	if err == nil {
		err = errors.Join(l.disk.write(f, fmt.Appendf(nil, versionText, folderVersion)), f.Close())
	}
	if err != nil { // on a full disk: a later start marks it
		log.Warn("the version of the cache folder could not be written", "error", err)
	}
	return nil
}

// readVersion returns 0 where there is none.
func (l layout) readVersion() (version int, err error) {
	f, err := os.Open(l.version())
	if err != nil {
		return 0, ignoreMissing(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(raw), versionText, &version); err != nil {
		return 0, nil
	}
	return version, nil
}
