package records

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/larder-registry/larder/cache/disk"
)

// database is a Badger database of JSON values. It writes to the disk only while
// that is safe. Its methods may be called from several goroutines at once.
type database struct {
	badger   *badger.DB
	folder   *disk.Folder
	health   *disk.Health
	log      *slog.Logger
	inMemory bool // nothing of it is on disk

	vanished atomic.Bool // somebody removed its files, and that was logged

	changes atomic.Int64 // how often records were written that a snapshot contains

	closing sync.RWMutex // locked for reading while the tables, which are mapped into memory, are read
}

// entry is a record to be written.
type entry struct {
	key   []byte
	value any
}

// get reads a record into v. It returns fs.ErrNotExist if there is none.
func (db *database) get(key []byte, v any) error {
	err := db.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		return item.Value(func(raw []byte) error { return json.Unmarshal(raw, v) })
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("read %s from the index: %w", key, err)
	}
	return nil
}

// has reports whether there is a record. It is true as well if that cannot be
// read.
func (db *database) has(key []byte) bool {
	err := db.view(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		return err
	})
	return !errors.Is(err, badger.ErrKeyNotFound)
}

// each calls visit for every record whose key begins with prefix, in the order
// of the keys, as they were at one time. name is the rest of the key. Both
// arguments are valid until visit returns.
func (db *database) each(prefix string, visit func(name, raw []byte) error) error {
	err := db.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			err := item.Value(func(raw []byte) error { return visit(item.Key()[len(prefix):], raw) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s… from the index: %w", prefix, err)
	}
	return nil
}

func (db *database) view(read func(*badger.Txn) error) error {
	db.closing.RLock()
	defer db.closing.RUnlock()
	return db.badger.View(read)
}

// put writes entries in their order. A crash may lose the last of them.
func (db *database) put(entries ...entry) error {
	return db.update(func(b *batch) error {
		for _, e := range entries {
			if err := b.put(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// putUnsaved writes a record that no snapshot contains.
func (db *database) putUnsaved(e entry) error {
	return db.write(func(b *batch) error { return b.put(e) })
}

// remove removes records. It is no error if they do not exist.
func (db *database) remove(keys ...[]byte) error {
	return db.update(func(b *batch) error {
		for _, key := range keys {
			if err := b.remove(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// update writes a batch of records that snapshots contain. The batch may be
// larger than one of Badger's transactions; a crash may lose its end.
func (db *database) update(change func(*batch) error) error {
	defer db.changes.Add(1)
	return db.write(change)
}

func (db *database) write(change func(*batch) error) error {
	var err error
	if !db.inMemory {
		err = errors.Join(db.folder.CheckFree(0, disk.IndexReserve), db.health.Refuses(), db.checkExists())
	}
	if err == nil {
		b := &batch{db.badger.NewWriteBatch()}
		defer b.writes.Cancel()
		if err = change(b); err == nil {
			err = b.writes.Flush()
		}
	}
	if err != nil {
		return fmt.Errorf("write to the index: %w", err)
	}
	return nil
}

// batch collects changes that are written together.
type batch struct{ writes *badger.WriteBatch }

func (b *batch) put(e entry) error {
	raw, err := json.Marshal(e.value)
	if err != nil {
		return err
	}
	return b.writes.Set(e.key, raw)
}

func (b *batch) remove(key []byte) error { return b.writes.Delete(key) }

// ErrVanished says that somebody removed the files of the index while this process has it
// open. What was recorded can be read; nothing more is recorded before the next start.
var ErrVanished = errors.New("the files of the index were removed while it is in use")

// checkExists returns ErrVanished if the files are gone. Badger itself would go on, until it
// has a table to write: then it tries again and again, and its callers wait.
func (db *database) checkExists() error {
	_, err := os.Lstat(filepath.Join(db.folder.Index(), badger.ManifestFilename))
	gone := errors.Is(err, fs.ErrNotExist)
	if was := db.vanished.Swap(gone); gone && !was {
		db.log.Error("the files of the index were removed: nothing more is recorded until a restart, which rebuilds the index from its snapshot",
			"folder", db.folder.Index())
	}
	if gone {
		return ErrVanished
	}
	return nil
}

// Closing the database may take so long. Badger tries to write again and again, without
// end.
const (
	maxClose     = 20 * time.Second // its tables in memory have some megabytes
	maxCloseSick = 5 * time.Second  // on a disk that is known to fail
)

// close writes what is in memory to the disk. If the disk has no space for that,
// or does not take it in time, the database is left as a crash would leave it,
// and the next start recovers it.
func (db *database) close() error {
	var err error
	if !db.inMemory {
		err = db.folder.FreeForIndex()
	}
	if err == nil {
		db.closing.Lock() // waits for readers; Badger itself refuses later ones
		defer db.closing.Unlock()
		err = db.closeInTime()
	}
	if err != nil {
		return fmt.Errorf("close the index: %w", err)
	}
	return nil
}

func (db *database) closeInTime() error {
	if db.inMemory {
		return db.badger.Close()
	}
	limit, failure := maxCloseSick, errors.Join(db.health.Refuses(), db.checkExists())
	if failure == nil {
		limit, failure = maxClose, errors.New("the disk does not take it")
	}
	done := make(chan error, 1)
	go func() { done <- db.badger.Close() }() // it may outlive the index; then the process is about to end
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("it took more than %v: %w", limit, failure)
	}
}
