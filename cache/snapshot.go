package cache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
)

// A snapshot is what of the index the files cannot tell, in one file beside it.
// FORMAT.md has the syntax. It is written and read in one go, with memory for
// the names in it only.

const snapshotHeader = "larder-snapshot 1\n"

// What begins an entry.
const (
	snapshotEnd byte = iota
	snapshotBlob
	snapshotTag
	snapshotRecord
)

// rawPrefixes are the records of which there are few. They are taken as they
// are.
var rawPrefixes = []string{pinPrefix, verdictPrefix}

// maxSnapshotString bounds names, keys and values, and maxSnapshotKey what keys
// are made of them: Badger takes none of 64 KiB.
const (
	maxSnapshotString = 64 << 10
	maxSnapshotKey    = 65_000
)

// errSnapshot says that a file is not a whole snapshot of this version.
var errSnapshot = errors.New("it is damaged, or of another version")

// snapshotWriter writes a snapshot. Errors come with finish.
type snapshotWriter struct {
	out   *bufio.Writer // to the file and sum
	file  io.Writer
	sum   hash.Hash
	names map[string]uint64
	buf   []byte // the entry that is being made
}

func newSnapshotWriter(w io.Writer, number uint64) *snapshotWriter {
	sum := sha256.New()
	s := &snapshotWriter{
		out:   bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10),
		file:  w,
		sum:   sum,
		names: make(map[string]uint64),
	}
	s.buf = append(s.buf, snapshotHeader...)
	s.uint(number)
	s.flush()
	return s
}

func (s *snapshotWriter) flush() {
	_, _ = s.out.Write(s.buf) // an error stays, for finish
	s.buf = s.buf[:0]
}

func (s *snapshotWriter) uint(n uint64) { s.buf = binary.AppendUvarint(s.buf, n) }
func (s *snapshotWriter) int(n int64)   { s.buf = binary.AppendVarint(s.buf, n) }

func (s *snapshotWriter) string(v string) {
	s.uint(uint64(len(v)))
	s.buf = append(s.buf, v...)
}

// name writes a string that comes again and again: the first time with its
// text, then by its number.
func (s *snapshotWriter) name(v string) {
	n, known := s.names[v]
	if !known {
		n = uint64(len(s.names))
		s.names[v] = n
	}
	s.uint(n)
	if !known {
		s.string(v)
	}
}

// digest writes a valid digest.
func (s *snapshotWriter) digest(d digest.Digest) {
	var id byte
	if d.Algorithm() == digest.SHA512 {
		id = 1
	}
	s.buf = append(s.buf, id)
	for hex := d.Encoded(); hex != ""; hex = hex[2:] {
		s.buf = append(s.buf, unhex(hex[0])<<4|unhex(hex[1]))
	}
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// blob is what a snapshot says of a blob.
type snapshotted struct {
	digest    digest.Digest
	used      int64  // in seconds since 1970, 0 if it is not known
	mediaType string // of a manifest
	members   []snapshotMember
}

type snapshotMember struct {
	repo string
	memberRecord
}

func (s *snapshotWriter) blob(b snapshotted) {
	if b.used == 0 && b.mediaType == "" && len(b.members) == 0 {
		return
	}
	s.buf = append(s.buf, snapshotBlob)
	s.digest(b.digest)
	s.int(b.used)
	s.name(b.mediaType)
	s.uint(uint64(len(b.members)))
	for _, m := range b.members {
		s.name(m.repo)
		s.int(m.Size)
		var manifest byte
		if m.Manifest {
			manifest = 1
		}
		s.buf = append(s.buf, manifest)
	}
	s.flush()
}

func (s *snapshotWriter) tag(r Repository, tag string, rec tagRecord) {
	s.buf = append(s.buf, snapshotTag)
	s.name(r.String())
	s.string(tag)
	s.digest(rec.Digest)
	s.int(rec.Checked.Unix())
	s.flush()
}

func (s *snapshotWriter) record(key, value []byte) {
	s.buf = append(s.buf, snapshotRecord)
	s.string(string(key))
	s.string(string(value))
	s.flush()
}

func (s *snapshotWriter) finish() error {
	s.buf = append(s.buf, snapshotEnd)
	s.flush()
	if err := s.out.Flush(); err != nil {
		return err
	}
	_, err := s.file.Write(s.sum.Sum(nil))
	return err
}

// writeSnapshot writes what the index says at one time.
func (ix *index) writeSnapshot(w io.Writer, number uint64, cancelled func() error) error {
	s := newSnapshotWriter(w, number)
	err := ix.view(func(txn *badger.Txn) error {
		if err := snapshotBlobs(txn, s, cancelled); err != nil {
			return err
		}
		for _, prefix := range append([]string{tagPrefix}, rawPrefixes...) {
			it := newCursor(txn, prefix)
			defer it.Close()
			for ; it.Valid(); it.next() {
				if err := it.Item().Value(func(raw []byte) error {
					snapshotOther(s, it.Item().Key(), raw)
					return cancelled()
				}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	return s.finish()
}

// snapshotOther writes a record that is not of a blob.
func snapshotOther(s *snapshotWriter, key, raw []byte) {
	if !bytes.HasPrefix(key, []byte(tagPrefix)) {
		s.record(key, raw)
		return
	}
	var rec tagRecord
	if json.Unmarshal(raw, &rec) == nil && rec.Digest.Validate() == nil {
		repo, tag := splitTagKey(string(key))
		s.tag(repo, tag, rec)
	}
}

// snapshotBlobs goes through three kinds of records at once, all of which are
// in the order of the digests.
func snapshotBlobs(txn *badger.Txn, s *snapshotWriter, cancelled func() error) error {
	blobs, uses, members := newCursor(txn, blobPrefix), newCursor(txn, usedPrefix), newCursor(txn, memberPrefix)
	defer blobs.Close()
	defer uses.Close()
	defer members.Close()
	for cancelled() == nil {
		d := min(blobs.digest, uses.digest, members.digest)
		if d == noDigest {
			return nil
		}
		b := snapshotted{digest: d}
		for ; blobs.digest == d; blobs.next() {
			b.mediaType = blobs.manifest().MediaType
		}
		for ; uses.digest == d; uses.next() {
			_ = unmarshal(uses.Item(), &b.used) // or it stays 0
		}
		for ; members.digest == d; members.next() {
			m := snapshotMember{repo: string(members.Item().Key()[len(membersOf(d)):])}
			if unmarshal(members.Item(), &m.memberRecord) == nil {
				b.members = append(b.members, m)
			}
		}
		if CheckDigest(d) == nil {
			s.blob(b)
		}
	}
	return cancelled()
}

// cursor goes through the records under one prefix.
type cursor struct {
	*badger.Iterator
	prefix string
	digest digest.Digest // of the record at hand, if it is one of a blob; noDigest behind the last
}

func newCursor(txn *badger.Txn, prefix string) *cursor {
	c := &cursor{Iterator: txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)}), prefix: prefix}
	c.Rewind()
	c.read()
	return c
}

// noDigest is behind all digests.
const noDigest digest.Digest = "\xff"

func (c *cursor) next() {
	c.Next()
	c.read()
}

func (c *cursor) read() {
	if !c.Valid() {
		c.digest = noDigest
		return
	}
	key := c.Item().Key()[len(c.prefix):]
	if i := bytes.IndexByte(key, '/'); i >= 0 {
		key = key[:i]
	}
	c.digest = digest.Digest(key)
}

// manifest is the blob record at hand where it is of a manifest. Most are not, and
// are not decoded.
func (c *cursor) manifest() (rec blobRecord) {
	_ = c.Item().Value(func(raw []byte) error {
		if bytes.Contains(raw, []byte(`"mediaType"`)) {
			return json.Unmarshal(raw, &rec)
		}
		return nil
	})
	return rec
}

// openSnapshot opens a snapshot and returns its number, which is not yet known
// to be right. It returns fs.ErrNotExist where there is none.
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

// readSnapshot calls visit for each entry of the index that follows from a
// snapshot, once it knows that the whole is as it was written.
func readSnapshot(r io.ReadSeeker, visit func(entry) error) error {
	end, err := r.Seek(-sha256.Size, io.SeekEnd)
	if err != nil {
		return errSnapshot // shorter than that
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
	return newSnapshotReader(io.LimitReader(r, end)).read(visit)
}

// snapshotReader decodes a snapshot without its checksum. An error stays, and
// what is read after it is zero.
type snapshotReader struct {
	in    *bufio.Reader
	names []string
	err   error
}

func newSnapshotReader(r io.Reader) *snapshotReader {
	return &snapshotReader{in: bufio.NewReader(r)}
}

func (s *snapshotReader) read(visit func(entry) error) error {
	if string(s.bytes(uint64(len(snapshotHeader)))) != snapshotHeader {
		s.fail()
	}
	s.uint() // its number
	for s.err == nil {
		var entries []entry
		switch s.byte() {
		case snapshotBlob:
			entries = s.blob()
		case snapshotTag:
			repo, tag := cutRepository(s.name()), s.string()
			rec := tagRecord{Digest: s.digest(), Checked: time.Unix(s.int(), 0).UTC()}
			entries = []entry{{tagKey(repo, tag), rec}}
		case snapshotRecord:
			entries = []entry{{[]byte(s.string()), json.RawMessage(s.string())}}
		case snapshotEnd:
			if _, err := s.in.ReadByte(); err == nil {
				s.fail()
			}
			return s.err
		default:
			s.fail()
		}
		for _, e := range entries {
			if len(e.key) == 0 || len(e.key) > maxSnapshotKey {
				s.fail()
			}
			if s.err == nil {
				s.err = visit(e)
			}
		}
	}
	return s.err
}

func (s *snapshotReader) blob() []entry {
	var entries []entry
	d, used, mediaType := s.digest(), s.int(), s.name()
	if used != 0 {
		entries = append(entries, entry{usedKey(d), used})
	}
	if mediaType != "" {
		entries = append(entries, entry{blobKey(d), blobRecord{MediaType: mediaType}})
	}
	for n := s.uint(); n > 0 && s.err == nil; n-- {
		repo, rec := cutRepository(s.name()), memberRecord{Size: s.int(), Manifest: s.byte() == 1}
		entries = append(entries, entry{memberKey(repo, d), rec})
	}
	return entries
}

func (s *snapshotReader) fail() {
	if s.err == nil {
		s.err = errSnapshot
	}
}

func (s *snapshotReader) byte() byte {
	b, err := s.in.ReadByte()
	if err != nil {
		s.fail()
	}
	return b
}

func (s *snapshotReader) uint() uint64 {
	n, err := binary.ReadUvarint(s.in)
	if err != nil {
		s.fail()
		return 0
	}
	return n
}

func (s *snapshotReader) int() int64 {
	n, err := binary.ReadVarint(s.in)
	if err != nil {
		s.fail()
		return 0
	}
	return n
}

func (s *snapshotReader) bytes(n uint64) []byte {
	if n > maxSnapshotString {
		s.fail()
	}
	if s.err != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.in, b); err != nil {
		s.fail()
	}
	return b
}

func (s *snapshotReader) string() string { return string(s.bytes(s.uint())) }

func (s *snapshotReader) name() string {
	n := s.uint()
	if n == uint64(len(s.names)) {
		s.names = append(s.names, s.string())
	}
	if n >= uint64(len(s.names)) {
		s.fail()
		return ""
	}
	return s.names[n]
}

func (s *snapshotReader) digest() digest.Digest {
	algorithm := digest.SHA256
	if s.byte() == 1 {
		algorithm = digest.SHA512
	}
	return digest.NewDigestFromBytes(algorithm, s.bytes(uint64(algorithm.Size())))
}
