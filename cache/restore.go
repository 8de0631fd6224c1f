package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
)

// indexVersion is what the records of the index mean. An index of another
// version is set aside and made anew from the files and the snapshot.
const indexVersion = 1

// formatRecord is written last when an index is made: one without it is not
// whole.
type formatRecord struct {
	Version int `json:"version"`
	// Snapshot is the number of the latest snapshot that was begun. An index that
	// is behind its snapshot has lost records.
	Snapshot uint64 `json:"snapshot,omitempty"`
	// Rebuilding says that records of manifests are missing, of which the files
	// are there.
	Rebuilding bool `json:"rebuilding,omitempty"`
}

var formatKey = []byte("format")

// putFormat records ix.format. One goroutine at a time calls it.
func (ix *index) putFormat() error { return ix.note(entry{formatKey, ix.format}) }

// readIndex opens the index on disk, or fails where it is not whole.
func readIndex(l *disk.Folder, log *slog.Logger) (*index, error) {
	opts := indexOptions(l.Index(), log)
	if err := checkIndex(opts); err != nil {
		return nil, err
	}
	db, err := openDB(opts)
	if err != nil {
		return nil, err
	}
	ix := &index{db: db, folder: l}
	err = ix.get(formatKey, &ix.format)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("it is not whole")
	case err == nil && ix.format.Version != indexVersion:
		err = fmt.Errorf("it has version %d, and this Larder reads version %d", ix.format.Version, indexVersion)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	ix.catchUp(log)
	return ix, nil
}

// openDB has a panic of Badger be an error: it panics over some of what damage
// makes of its files.
func openDB(opts badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return badger.Open(opts)
}

// checkIndex reads the index's files and fails where one is damaged. Badger
// itself passes over some damage without a word, such as over a list of tables
// that is missing, ends the process over some other, from a goroutine of its own,
// and never ends goroutines that it began before it found out.
func checkIndex(opts badger.Options) error {
	list, err := os.Open(filepath.Join(opts.Dir, badger.ManifestFilename))
	if err != nil {
		return fmt.Errorf("look for the list of its tables: %w", err)
	}
	defer list.Close()
	tables, _, err := badger.ReplayManifestFile(list, opts.ExternalMagicVersion, opts)
	if err != nil {
		return fmt.Errorf("read the list of its tables: %w", err)
	}
	for id := range tables.Tables { // others are removed by Badger: a crash left them
		if err := checkTable(table.NewFilename(id, opts.Dir)); err != nil {
			return fmt.Errorf("check table %d: %w", id, err)
		}
	}
	keys, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: opts.Dir, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("check its keys: %w", err)
	}
	return errors.Join(keys.Close(), checkLogs(opts.Dir))
}

// checkLogs looks at what the logs begin with: the number of the key that they
// are encrypted with, which is 0. Badger makes none that is empty.
func checkLogs(dir string) error {
	var logs []string
	for _, pattern := range []string{"*.mem", "*.vlog"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		logs = append(logs, paths...)
	}
	for _, path := range logs {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		key := make([]byte, 8)
		n, _ := f.ReadAt(key, 0) // one that is shorter is emptied by Badger
		if err := f.Close(); err != nil {
			return err
		}
		if n == 0 || !bytes.Equal(key, make([]byte, 8)) {
			return fmt.Errorf("log %s is damaged", filepath.Base(path))
		}
	}
	return nil
}

func checkTable(path string) (err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			problem, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			err = fmt.Errorf("it is damaged: %s", problem)
		}
	}()
	id, _ := table.ParseFileID(filepath.Base(path))
	t, err := table.OpenInMemoryTable(raw, id, &table.Options{ChkMode: options.OnBlockRead})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}

// catchUp takes the snapshot over where it has what the index has lost.
func (ix *index) catchUp(log *slog.Logger) {
	f, number, err := openSnapshot(ix.folder.Snapshot())
	if err != nil {
		return
	}
	defer f.Close()
	if number <= ix.format.Snapshot {
		return
	}
	log.Warn("the index has lost its latest records; they are taken from the snapshot")
	if err := ix.load(f); err != nil {
		log.Warn("the snapshot of the index could not be read, and is ignored", "error", err)
		return
	}
	ix.format.Snapshot, ix.format.Rebuilding = number, true
	if err := ix.putFormat(); err != nil {
		log.Warn("the index could not be brought up to date", "error", err)
	}
}

// load writes what a snapshot says. Of a manifest it says less than a record
// does that is there already.
func (ix *index) load(snapshot io.ReadSeeker) error {
	return ix.update(func(batch *badger.WriteBatch) error {
		return readSnapshot(snapshot, func(e entry) error {
			var rec blobRecord
			if bytes.HasPrefix(e.key, []byte(blobPrefix)) && ix.get(e.key, &rec) == nil && rec.Size > 0 {
				return nil
			}
			return set(batch, e)
		})
	})
}

// bulk is how many bytes go to Badger's stream writer at a time.
const bulk = 1 << 20

// loadNew is load for an index without records. It makes tables as they are to
// stay, where writes would make small ones to be compacted: a million blobs take
// seconds. The records of one kind are in order in a snapshot.
func (ix *index) loadNew(snapshot io.ReadSeeker) error {
	w := ix.db.NewStreamWriter()
	defer w.Cancel()
	if err := w.Prepare(); err != nil {
		return err
	}
	buf := z.NewBuffer(2*bulk, "snapshot")
	defer func() { _ = buf.Release() }() // it is memory
	kinds := make(map[string]uint32)
	err := readSnapshot(snapshot, func(e entry) error {
		raw, err := json.Marshal(e.value)
		if err != nil {
			return err
		}
		kind, _, _ := strings.Cut(string(e.key), "/")
		if _, known := kinds[kind]; !known {
			kinds[kind] = uint32(len(kinds))
		}
		badger.KVToBuffer(&pb.KV{Key: e.key, Value: raw, Version: 1, StreamId: kinds[kind]}, buf)
		if buf.LenNoPadding() < bulk {
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

// bulkOptions are for loadNew: the stream writer has two of the largest tables in
// memory for each kind of record, so none may be larger than the others.
func bulkOptions(dir string, log *slog.Logger) badger.Options {
	opts := indexOptions(dir, log)
	opts.TableSizeMultiplier = 1
	return opts
}

// restoreIndex begins a new index with what the snapshot says, if there is one.
// What the files say is added by Store.scan.
func restoreIndex(l *disk.Folder, log *slog.Logger) (*index, error) {
	if err := roomToRestore(l); err != nil {
		log.Error("the disk has no room to make the index anew; until the next start, it is kept in memory only", "error", err)
		return volatileIndex(l, log)
	}
	db, err := openDB(bulkOptions(l.Index(), log))
	if err != nil {
		return nil, fmt.Errorf("begin a new index: %w", err)
	}
	ix := &index{db: db, folder: l, format: formatRecord{Version: indexVersion}}
	f, number, err := openSnapshot(l.Snapshot())
	if err == nil {
		err = errors.Join(ix.loadNew(f), f.Close())
	}
	switch {
	case err == nil:
		ix.format.Snapshot = number
		log.Info("the index was made anew from its snapshot")
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("the snapshot of the index could not be read, and is ignored", "error", err)
	}
	if l.HasBlobs() {
		ix.format.Rebuilding = true
		err = ix.note(entry{scrubKey, scrubPosition{AtOnce: true}})
	} else {
		err = nil
	}
	if err == nil {
		err = ix.putFormat()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin a new index: %w", err), db.Close())
	}
	return ix, nil
}

// perSnapshot is how many bytes of an index come of a byte of its snapshot: 9 were
// measured at rest, and 17 while it was written, when old tables are still there.
const perSnapshot = 20

// roomToRestore returns ENOSPC where the index that follows from the snapshot
// would fill the disk.
func roomToRestore(l *disk.Folder) error {
	info, err := os.Stat(l.Snapshot())
	if err != nil {
		return disk.IgnoreMissing(err)
	}
	return l.CheckFree(perSnapshot*info.Size(), disk.IndexReserve)
}

// maxVolatile bounds, in bytes, the snapshot that is taken into memory.
const maxVolatile = 16 << 20

// volatileIndex is one in memory, with what the snapshot says.
func volatileIndex(l *disk.Folder, log *slog.Logger) (*index, error) {
	db, err := openDB(indexOptions("", log).WithInMemory(true))
	if err != nil {
		return nil, fmt.Errorf("open an index in memory: %w", err)
	}
	ix := &index{db: db, folder: l, volatile: true}
	ix.format = formatRecord{Version: indexVersion, Rebuilding: true}
	f, _, err := openSnapshot(l.Snapshot())
	if err != nil {
		return ix, nil // it is forgotten anyway
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxVolatile {
		return ix, nil
	}
	if err := ix.load(f); err != nil {
		log.Warn("the snapshot of the index could not be read, and is ignored", "error", err)
	}
	return ix, nil
}

// hasBlobs reports whether there is any blob.
func hasBlobs(l *disk.Folder) (found bool) {
	_ = l.EachBlob("", func(digest.Digest, fs.FileInfo) error {
		found = true
		return fs.SkipAll
	})
	return found
}
