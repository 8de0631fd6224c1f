package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// EntryError says which entry of an archive is to blame.
type EntryError struct {
	Name string // shortened if it is long
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %q: %v", e.Name, e.Err) }

// Unwrap is for [errors.Is].
func (e *EntryError) Unwrap() error { return e.Err }

// blame makes an error that of an entry, if it is not that of one already.
func blame(name string, err error) error {
	if already, ok := errors.AsType[*EntryError](err); ok {
		return already
	}
	if len(name) > maxPath {
		name = name[:maxPath] + "…"
	}
	return &EntryError{name, err}
}

const (
	blockSize = 512  // of a tar
	maxPath   = 255  // bytes of an entry's name; the longest that a layout needs has 141
	endSize   = 1024 // the two empty blocks at the end of a tar
)

// entry is an entry that a bundle has.
type entry struct {
	name    string // a folder's ends in a slash
	size    int64
	content []byte // nil for a blob
	blob    Blob
}

func documentEntry(name string, raw []byte) entry {
	return entry{name: name, size: int64(len(raw)), content: raw}
}

func blobEntry(b Blob) entry { return entry{name: blobName(b.Digest), size: b.Size, blob: b} }

func blobName(d digest.Digest) string { return "blobs/" + string(d.Algorithm()) + "/" + d.Encoded() }

// header returns the header of an entry as it is in the tar. It is a PAX header where an old
// one does not suffice: for sizes from 8 GiB, and for the long names of sha512.
func (e entry) header() []byte {
	h := tar.Header{Name: e.name, Size: e.size, Mode: 0o444, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
	if strings.HasSuffix(e.name, "/") {
		h.Mode, h.Typeflag = 0o755, tar.TypeDir
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&h); err != nil {
		panic(err) // all headers of a bundle can be written
	}
	return buf.Bytes()
}

// padding returns how many zeros follow the content.
func (e entry) padding() int64 { return -e.size & (blockSize - 1) }

// sizeOf returns how many bytes an entry takes.
func sizeOf(e entry) int64 { return int64(len(e.header())) + e.size + e.padding() }

// cleanName returns the name of an entry without "./" and without the slash of a folder, or
// an error for one that leads somewhere else or has another spelling.
func cleanName(name string) (string, error) {
	switch {
	case len(name) > maxPath:
		return "", fmt.Errorf("its name has %d bytes, which are more than %d", len(name), maxPath)
	case strings.ContainsAny(name, "\x00\\"):
		return "", errors.New("its name has a character that is not allowed")
	case strings.HasPrefix(name, "/"):
		return "", errors.New("its name is an absolute path")
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/")
	if name == "" {
		return ".", nil
	}
	if path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") {
		return "", errors.New("its name is not a plain path")
	}
	return name, nil
}

// blobDigest returns the digest of the blob with a name; ok is false if it is not in the
// folder of blobs.
func blobDigest(name string) (d digest.Digest, ok bool, err error) {
	rest, ok := strings.CutPrefix(name, "blobs/")
	if !ok {
		return "", false, nil
	}
	algorithm, encoded, _ := strings.Cut(rest, "/")
	d = digest.Digest(algorithm + ":" + encoded)
	return d, true, checkDigest(d)
}
