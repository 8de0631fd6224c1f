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
	"math"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// errSnapshot says that a file is not a complete snapshot of this version.
var errSnapshot = errors.New("it is damaged, or of another version")

// openSnapshot opens a snapshot and returns its number, which is not verified
// yet. It returns fs.ErrNotExist if there is none.
func openSnapshot(path string) (*os.File, uint64, error) {
	f, _, err := disk.OpenRegular(path, os.O_RDONLY)
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

// decoder reads a snapshot without its checksum. It keeps the first error; everything it
// reads after that is zero.
type decoder struct {
	in    *bufio.Reader
	names []text
	marks string // of the memberships of the next blob
	err   error
}

// text is a string of a snapshot. One that is not valid is empty.
type text struct {
	value string
	valid bool
}

func newDecoder(r io.Reader) *decoder { return &decoder{in: bufio.NewReader(r)} }

// read visits the records that are valid: see valid.go.
func (d *decoder) read(visit func(entry) error) error {
	header := make([]byte, len(snapshotHeader))
	if d.fill(header); string(header) != snapshotHeader {
		d.fail()
	}
	d.uint() // the number of the snapshot
	for d.err == nil {
		var entries []entry
		switch d.byte() {
		case snapshotBlob:
			entries = d.blob()
		case snapshotTag:
			entries = d.tag()
		case snapshotRecord:
			entries = d.record()
		case snapshotEnd:
			if _, err := d.in.ReadByte(); err == nil {
				d.fail()
			}
			return d.err
		default:
			d.fail()
		}
		for _, e := range entries {
			if d.err == nil && validKey(len(e.key)) {
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
	if mediaType.value != "" {
		entries = append(entries, entry{blobKey(dgst), Blob{MediaType: mediaType.value}})
	}
	marks := d.marks
	d.marks = ""
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		repo, rec := d.name(), Member{Size: d.int(), Manifest: d.byte() == 1}
		if marks != "" {
			rec.setMark(marks[0])
			marks = marks[1:]
		}
		if repo.valid {
			entries = append(entries, entry{memberKey(parseRepository(repo.value), dgst), rec})
		}
	}
	return entries
}

func (d *decoder) tag() []entry {
	repo, tag, dgst, checked := d.name(), d.text(), d.digest(), d.int()
	if !repo.valid || !tag.valid || !validTime(checked) {
		return nil
	}
	rec := Tag{Digest: dgst, Checked: time.Unix(checked, 0).UTC()}
	return []entry{{tagKey(parseRepository(repo.value), tag.value), rec}}
}

func (d *decoder) record() []entry {
	key, value := d.text(), d.text()
	if !key.valid || !value.valid || !validValue([]byte(value.value)) {
		return nil
	}
	if key.value == marksKey {
		_ = json.Unmarshal([]byte(value.value), &d.marks) // without marks, nothing is known of roles and proofs
		return nil
	}
	return []entry{{[]byte(key.value), json.RawMessage(value.value)}}
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

// fill reads all of b.
func (d *decoder) fill(b []byte) {
	if d.err != nil {
		return
	}
	if _, err := io.ReadFull(d.in, b); err != nil {
		d.fail()
	}
}

// text reads a string, and skips one that is too long.
func (d *decoder) text() text {
	n := d.uint()
	switch {
	case d.err != nil || n > math.MaxInt64:
		d.fail()
		return text{}
	case !validText(int(n)):
		if _, err := io.CopyN(io.Discard, d.in, int64(n)); err != nil {
			d.fail()
		}
		return text{}
	}
	b := make([]byte, n)
	d.fill(b)
	return text{string(b), true}
}

func (d *decoder) name() text {
	n := d.uint()
	if n == uint64(len(d.names)) {
		d.names = append(d.names, d.text())
	}
	if n >= uint64(len(d.names)) {
		d.fail()
		return text{}
	}
	return d.names[n]
}

func (d *decoder) digest() digest.Digest {
	algorithm := digest.SHA256
	switch d.byte() {
	case 0:
	case 1:
		algorithm = digest.SHA512
	default:
		d.fail()
	}
	sum := make([]byte, algorithm.Size())
	d.fill(sum)
	return digest.NewDigestFromBytes(algorithm, sum)
}
