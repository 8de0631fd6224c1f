package records

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dgraph-io/badger/v4"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
)

// Reserve reserves n bytes of disk space before they are written.
type Reserve func(ctx context.Context, n int64) error

// replaceSnapshot writes the snapshot with this number. The old one stays until
// the new one is durable; FORMAT.md says what a crash after each step leaves.
func replaceSnapshot(ctx context.Context, db *database, number uint64, reserve Reserve) error {
	path := db.folder.NewSnapshot()
	f, err := db.folder.Create(path, os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	out := &reservingFile{ctx: ctx, reserve: reserve, folder: db.folder, file: f}
	err = writeSnapshot(out, db, number, ctx.Err)
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		err = db.folder.Sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = db.folder.Replace(path, db.folder.Snapshot())
	}
	if err != nil {
		return errors.Join(err, db.folder.RemoveIfExists(path))
	}
	return db.folder.SyncDir(db.folder.Dir())
}

// reservingFile reserves space for a file as it grows.
type reservingFile struct {
	ctx     context.Context
	reserve Reserve
	folder  *disk.Folder
	file    *os.File
	buf     bytes.Buffer
}

// reserveStep is how many bytes are reserved, and written, at a time.
const reserveStep = 1 << 20

// Write is for the encoder.
func (r *reservingFile) Write(p []byte) (int, error) {
	r.buf.Write(p)
	if r.buf.Len() >= reserveStep {
		return len(p), r.flush()
	}
	return len(p), nil
}

func (r *reservingFile) flush() error {
	if err := r.reserve(r.ctx, int64(r.buf.Len())); err != nil {
		return fmt.Errorf("reserve space for it: %w", err)
	}
	defer r.buf.Reset()
	return r.folder.Write(r.file, r.buf.Bytes())
}

// rawPrefixes begin the keys of records of which there are few, or which are
// large. A snapshot contains them as they are.
var rawPrefixes = []string{pinPrefix, pendingPrefix, nextPrefix, verdictPrefix, referrersPrefix}

// writeSnapshot writes what the index says at one time. It ends with the error
// of cancelled, once that returns one.
func writeSnapshot(w io.Writer, db *database, number uint64, cancelled func() error) error {
	e := newEncoder(w, number)
	err := db.view(func(txn *badger.Txn) error {
		if err := snapshotBlobs(txn, e, cancelled); err != nil {
			return err
		}
		for _, prefix := range append([]string{tagPrefix}, rawPrefixes...) {
			it := newCursor(txn, prefix)
			defer it.Close()
			for ; it.Valid(); it.next() {
				if err := it.Item().Value(func(raw []byte) error {
					snapshotOther(e, prefix, it.name(), raw)
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
	return e.finish()
}

// snapshotOther writes a record that is not of a blob, if it is valid.
func snapshotOther(e *encoder, prefix string, name, raw []byte) {
	if prefix == tagPrefix {
		snapshotTagOf(e, name, raw)
		return
	}
	key := prefix + string(name)
	switch {
	case !validKey(len(key)):
	case validValue(raw):
		e.record(key, raw)
	case prefix == pinPrefix: // a pin holds even if its record cannot be decoded
		e.record(key, []byte("{}"))
	}
}

func snapshotTagOf(e *encoder, name, raw []byte) {
	var rec Tag
	repo, tag := parseTag(string(name))
	key := tagKey(repo, tag)
	isKey := validKey(len(key)) && string(key) == tagPrefix+string(name)
	switch {
	case !isKey || json.Unmarshal(raw, &rec) != nil || !validDigest(rec.Digest) || !validTime(rec.Checked.Unix()):
	case (rec.Before != "" || rec.Local) && validValue(raw): // the short form has no place for these
		e.record(string(key), raw)
	default:
		e.tag(repo, tag, rec)
	}
}

// snapshotBlobs goes through three kinds of records at once. All of them are in
// the order of the digests. It writes what is valid of them.
func snapshotBlobs(txn *badger.Txn, e *encoder, cancelled func() error) error {
	blobs, uses, members := newCursor(txn, blobPrefix), newCursor(txn, usedPrefix), newCursor(txn, memberPrefix)
	defer blobs.Close()
	defer uses.Close()
	defer members.Close()
	for cancelled() == nil {
		d := min(blobs.digest, uses.digest, members.digest)
		if d == afterAll {
			return nil
		}
		b := snapshotted{digest: d}
		for ; blobs.digest == d; blobs.next() {
			var rec Blob
			if blobs.read(func(raw []byte) error { return decodeManifest(raw, &rec) }) == nil && validText(len(rec.MediaType)) {
				b.mediaType = rec.MediaType
			}
		}
		for ; uses.digest == d; uses.next() {
			_ = uses.read(func(raw []byte) (err error) { // if it fails, b.used stays 0
				b.used, err = decodeSeconds(raw)
				return err
			})
		}
		for ; members.digest == d; members.next() {
			_, repo, _ := bytes.Cut(members.name(), []byte("/"))
			m := snapshotMember{repo: string(repo)}
			isKey := validKey(len(members.Item().Key())) && parseRepository(m.repo).String() == m.repo
			if isKey && len(b.members) < maxMembers && members.read(func(raw []byte) error { return json.Unmarshal(raw, &m.Member) }) == nil {
				b.members = append(b.members, m)
			}
		}
		if validDigest(d) {
			e.blob(b)
		}
	}
	return cancelled()
}

// cursor goes through the records under one prefix.
type cursor struct {
	*badger.Iterator
	prefix string
	digest digest.Digest // of the current record, if it is one of a blob; afterAll behind the last one
}

// afterAll sorts after all digests.
const afterAll digest.Digest = "\xff"

func newCursor(txn *badger.Txn, prefix string) *cursor {
	c := &cursor{Iterator: txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)}), prefix: prefix}
	c.Rewind()
	c.readDigest()
	return c
}

func (c *cursor) next() {
	c.Next()
	c.readDigest()
}

func (c *cursor) readDigest() {
	if !c.Valid() {
		c.digest = afterAll
		return
	}
	name := c.name()
	if i := bytes.IndexByte(name, '/'); i >= 0 {
		name = name[:i]
	}
	c.digest = digest.Digest(name)
}

// name is the key of the current record without the prefix.
func (c *cursor) name() []byte { return c.Item().Key()[len(c.prefix):] }

func (c *cursor) read(decode func(raw []byte) error) error { return c.Item().Value(decode) }
