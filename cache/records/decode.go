package records

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxString bounds, in bytes, the names, keys and values of a snapshot, and
// maxKey the keys that are made of them: Badger takes no key of 64 KiB.
const (
	maxString = 64 << 10
	maxKey    = 65_000
)

// errSnapshot says that a file is not a complete snapshot of this version.
var errSnapshot = errors.New("it is damaged, or of another version")

// openSnapshot opens a snapshot and returns its number, which is not verified
// yet. It returns fs.ErrNotExist if there is none.
func openSnapshot(path string) (*os.File, uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	head := make([]byte, len(snapshotHeader)+binary.MaxVarintLen64)
	n, _ := f.ReadAt(head, 0)
	number, size := uint64(0), 0
	if rest, ok := bytes.CutPrefix(head[:n], []byte(snapshotHeader)); ok {
		number, size = binary.Uvarint(rest)
	}
	if size <= 0 {
		return nil, 0, errors.Join(&fs.PathError{Op: "read", Path: path, Err: errSnapshot}, f.Close())
	}
	return f, number, nil
}

// readSnapshot verifies the checksum of a snapshot, and then calls visit for
// each record that follows from it.
func readSnapshot(r io.ReadSeeker, visit func(entry) error) error {
	end, err := r.Seek(-sha256.Size, io.SeekEnd)
	if err != nil {
		return errSnapshot // it is shorter than a checksum
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, want); err != nil {
		return err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, r, end); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return errSnapshot
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return newDecoder(io.LimitReader(r, end)).read(visit)
}

// decoder reads a snapshot without its checksum. It keeps the first error;
// everything it reads after that is zero.
type decoder struct {
	in    *bufio.Reader
	names []string
	err   error
}

func newDecoder(r io.Reader) *decoder { return &decoder{in: bufio.NewReader(r)} }

func (d *decoder) read(visit func(entry) error) error {
	if string(d.bytes(uint64(len(snapshotHeader)))) != snapshotHeader {
		d.fail()
	}
	d.uint() // the number of the snapshot
	for d.err == nil {
		var entries []entry
		switch d.byte() {
		case snapshotBlob:
			entries = d.blob()
		case snapshotTag:
			repo, tag := parseRepository(d.name()), d.string()
			rec := Tag{Digest: d.digest(), Checked: time.Unix(d.int(), 0).UTC()}
			entries = []entry{{tagKey(repo, tag), rec}}
		case snapshotRecord:
			entries = []entry{{[]byte(d.string()), json.RawMessage(d.string())}}
		case snapshotEnd:
			if _, err := d.in.ReadByte(); err == nil {
				d.fail()
			}
			return d.err
		default:
			d.fail()
		}
		for _, e := range entries {
			if len(e.key) == 0 || len(e.key) > maxKey {
				d.fail()
			}
			if d.err == nil {
				d.err = visit(e)
			}
		}
	}
	return d.err
}

func (d *decoder) blob() []entry {
	var entries []entry
	dgst, used, mediaType := d.digest(), d.int(), d.name()
	if used != 0 {
		entries = append(entries, entry{usedKey(dgst), used})
	}
	if mediaType != "" {
		entries = append(entries, entry{blobKey(dgst), Blob{MediaType: mediaType}})
	}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		repo, rec := parseRepository(d.name()), Member{Size: d.int(), Manifest: d.byte() == 1}
		entries = append(entries, entry{memberKey(repo, dgst), rec})
	}
	return entries
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errSnapshot
	}
}

func (d *decoder) byte() byte {
	b, err := d.in.ReadByte()
	if err != nil {
		d.fail()
	}
	return b
}

func (d *decoder) uint() uint64 {
	n, err := binary.ReadUvarint(d.in)
	if err != nil {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) int() int64 {
	n, err := binary.ReadVarint(d.in)
	if err != nil {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) bytes(n uint64) []byte {
	if n > maxString {
		d.fail()
	}
	if d.err != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.in, b); err != nil {
		d.fail()
	}
	return b
}

func (d *decoder) string() string { return string(d.bytes(d.uint())) }

func (d *decoder) name() string {
	n := d.uint()
	if n == uint64(len(d.names)) {
		d.names = append(d.names, d.string())
	}
	if n >= uint64(len(d.names)) {
		d.fail()
		return ""
	}
	return d.names[n]
}

func (d *decoder) digest() digest.Digest {
	algorithm := digest.SHA256
	if d.byte() == 1 {
		algorithm = digest.SHA512
	}
	return digest.NewDigestFromBytes(algorithm, d.bytes(uint64(algorithm.Size())))
}
