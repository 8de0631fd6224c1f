package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// folderVersion defines the names and the content of files under blobs/ and partial/. It
// changes only if an older Larder would misread them: then that Larder must not touch
// the folder. The index and its snapshot have versions of their own, and may be thrown
// away.
const folderVersion = 1

const versionText = "larder-cache %d\n"

func (f *Folder) version() string { return filepath.Join(f.dir, "larder.version") }

// checkVersion ensures that this Larder can read the folder, and marks the folder. A
// version file that cannot be read, as a crash may leave it, is written again.
func (f *Folder) checkVersion() error {
	switch version, err := f.readVersion(); {
	case err != nil:
		return fmt.Errorf("read the version of the cache folder: %w", err)
	case version > folderVersion:
		return fmt.Errorf("the cache folder %s has version %d, and this Larder knows version %d: use the newer Larder that made it, or another folder",
			f.dir, version, folderVersion)
	case version == folderVersion:
		return nil
	}
	file, err := f.Create(f.version(), os.O_WRONLY|os.O_TRUNC, 0o640)
	if err == nil {
		err = errors.Join(f.Write(file, fmt.Appendf(nil, versionText, folderVersion)), file.Close())
	}
	if err != nil { // on a full or read-only disk; a later start writes it
		f.log.Warn("the version of the cache folder could not be written", "error", err)
	}
	return nil
}

// readVersion returns 0 if the folder has no version.
func (f *Folder) readVersion() (version int, err error) {
	file, _, err := OpenRegular(f.version(), os.O_RDONLY)
	if isIrregular(err) {
		return 0, nil
	}
	if err != nil {
		return 0, IgnoreMissing(err)
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, 64))
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(raw), versionText, &version); err != nil {
		return 0, nil
	}
	return version, nil
}
