package records

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
)

// snapshotHeader begins every snapshot. FORMAT.md has the syntax of the rest.
const snapshotHeader = "larder-snapshot 1\n"

// An entry of a snapshot begins with its kind.
const (
	snapshotEnd byte = iota
	snapshotBlob
	snapshotTag
	snapshotRecord
)

// encoder writes a snapshot. It needs memory for the names in it only. An error
// is kept for finish.
type encoder struct {
	out   *bufio.Writer // to file and sum
	file  io.Writer
	sum   hash.Hash
	names map[string]uint64
	buf   []byte // the entry that is being made
}

func newEncoder(w io.Writer, number uint64) *encoder {
	sum := sha256.New()
	e := &encoder{
		out:   bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10),
		file:  w,
		sum:   sum,
		names: make(map[string]uint64),
	}
	e.buf = append(e.buf, snapshotHeader...)
	e.uint(number)
	e.flush()
	return e
}

// snapshotted is what a snapshot says of a blob.
type snapshotted struct {
	digest    digest.Digest
	used      int64  // in seconds since 1970, 0 if it is not known
	mediaType string // of a manifest
	members   []snapshotMember
}

type snapshotMember struct {
	repo string
	Member
}

// maxMembers bounds the memberships of one blob in a snapshot, so that their marks fit into
// a record.
const maxMembers = 50_000

// marksKey is the key of a record that precedes the entry of a blob. Its value is a string
// with a mark for each membership: a letter for its role and its proof. It is a record so
// that earlier releases can read the snapshot; they keep a record of this key that nobody
// reads. There is none if no membership has a role or a proof.
const marksKey = "m"

// roles are all roles, in the order of their marks.
var roles = []Role{"", ManifestOnly, ManifestAndBlob}

// markOf returns the mark of a membership. A role or a proof of a later release is marked as
// the one that says least.
func markOf(m Member) byte {
	role, proof := max(slices.Index(roles, m.Role), 0), max(slices.Index(proofs, m.Proven), 0)
	return 'a' + byte(role*len(proofs)+proof)
}

// setMark undoes markOf. An unknown mark says that there is no proof.
func (m *Member) setMark(mark byte) {
	n := int(mark) - 'a'
	if n < 0 || n >= len(roles)*len(proofs) {
		n = 0
	}
	m.Role, m.Proven = roles[n/len(proofs)], proofs[n%len(proofs)]
}

func (e *encoder) blob(b snapshotted) {
	if b.used == 0 && b.mediaType == "" && len(b.members) == 0 {
		return
	}
	e.marks(b.members)
	e.buf = append(e.buf, snapshotBlob)
	e.digest(b.digest)
	e.int(b.used)
	e.name(b.mediaType)
	e.uint(uint64(len(b.members)))
	for _, m := range b.members {
		e.name(m.repo)
		e.int(m.Size)
		var manifest byte
		if m.Manifest {
			manifest = 1
		}
		e.buf = append(e.buf, manifest)
	}
	e.flush()
}

// marks writes the marks of the memberships of the next blob, if they say anything.
func (e *encoder) marks(members []snapshotMember) {
	marks, say := []byte{'"'}, false
	for _, m := range members {
		mark := markOf(m.Member)
		marks, say = append(marks, mark), say || mark != markOf(Member{})
	}
	if say {
		e.record(marksKey, append(marks, '"'))
	}
}

func (e *encoder) tag(r Repository, tag string, rec Tag) {
	e.buf = append(e.buf, snapshotTag)
	e.name(r.String())
	e.string(tag)
	e.digest(rec.Digest)
	e.int(rec.Checked.Unix())
	e.flush()
}

// record writes a record as it is.
func (e *encoder) record(key string, value []byte) {
	e.buf = append(e.buf, snapshotRecord)
	e.string(key)
	e.string(string(value))
	e.flush()
}

// finish writes the end of the snapshot and its checksum. It returns the first
// error of the encoder.
func (e *encoder) finish() error {
	e.buf = append(e.buf, snapshotEnd)
	e.flush()
	if err := e.out.Flush(); err != nil {
		return err
	}
	_, err := e.file.Write(e.sum.Sum(nil))
	return err
}

func (e *encoder) flush() {
	_, _ = e.out.Write(e.buf) // bufio keeps the error for Flush
	e.buf = e.buf[:0]
}

func (e *encoder) uint(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }
func (e *encoder) int(n int64)   { e.buf = binary.AppendVarint(e.buf, n) }

func (e *encoder) string(v string) {
	e.uint(uint64(len(v)))
	e.buf = append(e.buf, v...)
}

// name writes a string that comes many times: its text follows its number the
// first time.
func (e *encoder) name(v string) {
	n, known := e.names[v]
	if !known {
		n = uint64(len(e.names))
		e.names[v] = n
	}
	e.uint(n)
	if !known {
		e.string(v)
	}
}

// digest writes a valid digest.
func (e *encoder) digest(d digest.Digest) {
	var id byte
	if d.Algorithm() == digest.SHA512 {
		id = 1
	}
	e.buf = append(e.buf, id)
	for hex := d.Encoded(); hex != ""; hex = hex[2:] {
		e.buf = append(e.buf, hexDigit(hex[0])<<4|hexDigit(hex[1]))
	}
}

func hexDigit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
