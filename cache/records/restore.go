package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/larder-registry/larder/cache/disk"
)

// load writes the records of a snapshot. It keeps the record of a manifest that
// is there already: a snapshot says less of it.
func load(db *database, snapshot io.ReadSeeker) error {
	return db.update(func(b *batch) error {
		return readSnapshot(snapshot, func(e entry) error {
			var rec Blob
			if bytes.HasPrefix(e.key, []byte(blobPrefix)) && db.get(e.key, &rec) == nil && rec.Size > 0 {
				return nil
			}
			return b.put(e)
		})
	})
}

// bulkSize is how many bytes go to Badger's stream writer at a time.
const bulkSize = 1 << 20

// loadNew is load for a database without records. It makes tables as they are to
// stay; ordinary writes would make small ones and compact them, which takes
// seconds with a million blobs. A snapshot has the records of each kind in
// order, as the stream writer wants them; it skips one that is not.
func loadNew(db *database, snapshot io.ReadSeeker) error {
	w := db.badger.NewStreamWriter()
	defer w.Cancel()
	if err := w.Prepare(); err != nil {
		return err
	}
	buf := z.NewBuffer(2*bulkSize, "snapshot")
	defer func() { _ = buf.Release() }() // it is memory
	kinds := make(map[string]*kindLoaded)
	err := readSnapshot(snapshot, func(e entry) error {
		raw, err := json.Marshal(e.value)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(string(e.key), "/")
		kind, known := kinds[name]
		if !known {
			kind = &kindLoaded{stream: uint32(len(kinds))}
			kinds[name] = kind
		}
		if bytes.Compare(e.key, kind.last) <= 0 {
			return nil // the stream writer would refuse all of them
		}
		kind.last = e.key
		badger.KVToBuffer(&pb.KV{Key: e.key, Value: raw, Version: 1, StreamId: kind.stream}, buf)
		if buf.LenNoPadding() < bulkSize {
			return nil
		}
		defer buf.Reset()
		return w.Write(buf)
	})
	if err == nil {
		err = w.Write(buf)
	}
	return errors.Join(err, w.Flush())
}

// kindLoaded is what loadNew has loaded of one kind of records.
type kindLoaded struct {
	stream uint32 // its number
	last   []byte // the greatest key
}

// perSnapshot is how many bytes an index needs for each byte of its snapshot: 9
// were measured at rest, and 17 while it was written, when old tables still
// exist.
const perSnapshot = 20

// checkRestore returns ENOSPC if the index that follows from the snapshot would
// fill the disk.
func checkRestore(folder *disk.Folder) error {
	info, err := os.Stat(folder.Snapshot())
	if err != nil {
		return disk.IgnoreMissing(err)
	}
	return folder.CheckFree(perSnapshot*info.Size(), disk.IndexReserve)
}

// maxInMemory bounds, in bytes, a snapshot that is loaded into memory. Memory
// takes several times as much.
const maxInMemory = 16 << 20

// loadInMemory is load for a database in memory. It loads nothing of a snapshot
// that is too large, or that cannot be opened.
func loadInMemory(db *database) error {
	f, _, err := openSnapshot(db.folder.Snapshot())
	if err != nil {
		return nil // what is in memory is forgotten in any case
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxInMemory {
		return nil
	}
	return load(db, f)
}
