package records

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/larder-registry/larder/cache/disk"
)

// database is a Badger database of JSON values. It writes to the disk only while
// that is safe. Its methods may be called from several goroutines at once.
type database struct {
	folder  *disk.Folder
	health  *disk.Health
	workers int // of Badger: see Open
	log     *slog.Logger

	changes atomic.Int64  // how often records were written that a snapshot contains
	bytes   atomic.Int64  // see Index.Bytes
	suspect chan struct{} // has a value if the files may be damaged; capacity 1

	writing sync.RWMutex // write methods lock it for reading; Tidy locks it for writing while it removes records

	use      sync.RWMutex // guards what follows; locked for writing while that is closed or replaced
	badger   *badger.DB
	inMemory bool   // nothing of it is on disk
	files    *watch // nil if inMemory
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

// has reports whether there is a record, which may be one that cannot be decoded.
func (db *database) has(key []byte) (bool, error) {
	err := db.view(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s from the index: %w", key, err)
	}
	return true, nil
}

// each calls visit for every record whose key begins with prefix, in the order
// of the keys, as they were at one time. name is the rest of the key. Both
// arguments are valid until visit returns.
func (db *database) each(prefix string, visit func(name, raw []byte) error) error {
	return db.scan(prefix, func(item *badger.Item) error {
		return item.Value(func(raw []byte) error { return visit(item.Key()[len(prefix):], raw) })
	})
}

// errEnough ends a scan. It is not the scan's error.
var errEnough = errors.New("enough records were read")

// scan is each for a function that gets the item of the record.
func (db *database) scan(prefix string, visit func(*badger.Item) error) error {
	err := db.viewMany(func(txn *badger.Txn) error { return eachItem(txn, prefix, visit) })
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("read %s… from the index: %w", prefix, err)
	}
	return nil
}

// eachItem calls visit for every record of a transaction whose key begins with prefix, until
// visit returns an error. The item is valid until visit returns.
func eachItem(txn *badger.Txn, prefix string, visit func(*badger.Item) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if err := visit(it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// largeValues sums up the sizes, in bytes, of the values of more than above bytes whose keys
// begin with prefix, but for one of them. It does not read the values.
func (db *database) largeValues(prefix string, above int64, except []byte) (bytes int64, err error) {
	err = db.scan(prefix, func(item *badger.Item) error {
		if n := item.ValueSize(); n > above && string(item.Key()) != string(except) {
			bytes += n
		}
		return nil
	})
	return bytes, err
}

// viewMany is view for many records: Badger ends the process over some damage that it finds on
// the way, so the files are checked first.
func (db *database) viewMany(read func(*badger.Txn) error) error {
	return db.view(func(txn *badger.Txn) error {
		if err := db.checkFiles(); err != nil {
			return err
		}
		return read(txn)
	})
}

// view reads in one transaction. The tables are mapped into memory, so the disk's failure to
// read one, or a file that has become shorter, is a fault of the goroutine that reads: that
// becomes an error.
func (db *database) view(read func(*badger.Txn) error) (err error) {
	db.use.RLock()
	defer db.use.RUnlock()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = db.failedRead(r)
		}
	}()
	return db.badger.View(read)
}

// failedRead is the error of a read that ended in a panic. Badger panics over some damage of
// its files; if they turn out to be whole, the panic is a bug, so the log gets the stack.
func (db *database) failedRead(cause any) error {
	err := fmt.Errorf("the read failed: %v", cause)
	if db.askForRepair() {
		db.log.Error("the index could not be read; its files are checked", "error", err, "stack", string(debug.Stack()))
	}
	return err
}

// askForRepair has the files checked. It reports whether that was not asked for already.
func (db *database) askForRepair() bool {
	select {
	case db.suspect <- struct{}{}:
		return true
	default:
		return false
	}
}

// checkFiles returns ErrDamaged if somebody removed or changed the files. The caller has
// locked use.
func (db *database) checkFiles() error {
	if db.inMemory {
		return nil
	}
	err := db.files.quick()
	if errors.Is(err, ErrDamaged) {
		db.askForRepair()
	}
	return err
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

// errInMemory is the error for records that must be durable.
var errInMemory = errors.New("the index is in memory only, since its disk fails or is full; free some space or repair the disk, and start Larder again")

// putTogether writes entries, durably, in one transaction: a crash leaves all or none of them.
// It removes those whose value is nil. If a transaction is too small for them, it writes several in
// their order, each once the one before is durable. It fails for an index in memory.
func (db *database) putTogether(entries []entry) error {
	err := db.write(func() error {
		if db.inMemory {
			return errInMemory
		}
		defer db.changes.Add(1)
		if err := db.transact(entries); err != nil {
			return err
		}
		return db.sync()
	})
	if half := len(entries) / 2; errors.Is(err, badger.ErrTxnTooBig) && half > 0 {
		if err := db.putTogether(entries[:half]); err != nil {
			return err
		}
		return db.putTogether(entries[half:])
	}
	return err
}

// transact writes entries in one transaction. The caller has locked writing and use.
func (db *database) transact(entries []entry) error {
	txn := db.badger.NewTransaction(true)
	defer txn.Discard()
	bytes := int64(0)
	for _, e := range entries {
		if e.value == nil {
			if err := txn.Delete(e.key); err != nil {
				return err
			}
			continue
		}
		raw, err := json.Marshal(e.value)
		if err != nil {
			return err
		}
		if err := txn.Set(e.key, raw); err != nil {
			return err
		}
		bytes += int64(len(e.key) + len(raw))
	}
	db.bytes.Add(bytes)
	return txn.Commit()
}

// sync makes durable what was written. Badger itself syncs only the log that it writes to, so a
// full log, of which it still makes a table, comes first. The caller has locked use.
func (db *database) sync() error {
	logs, err := filepath.Glob(filepath.Join(db.folder.Index(), logPattern))
	if err != nil {
		return err
	}
	for _, path := range logs {
		log, _, err := disk.OpenRegular(path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its table is durable
		}
		if err == nil {
			err = errors.Join(db.folder.Sync(log), log.Close())
		}
		if err != nil {
			return err
		}
	}
	return db.badger.Sync()
}

// putUnsaved writes a record that no snapshot contains.
func (db *database) putUnsaved(e entry) error {
	return db.write(db.inBatch(func(b *batch) error { return b.put(e) }))
}

// remove removes records. It is no error if they do not exist.
func (db *database) remove(keys ...[]byte) error {
	db.writing.RLock()
	defer db.writing.RUnlock()
	return db.removeLocked(keys...)
}

// removeLocked is remove for a caller that has locked writing.
func (db *database) removeLocked(keys ...[]byte) error {
	defer db.changes.Add(1)
	return db.writeLocked(db.inBatch(func(b *batch) error {
		for _, key := range keys {
			if err := b.remove(key); err != nil {
				return err
			}
		}
		return nil
	}))
}

// update writes a batch of records that snapshots contain. The batch may be
// larger than one of Badger's transactions; a crash may lose its end.
func (db *database) update(change func(*batch) error) error {
	defer db.changes.Add(1)
	return db.write(db.inBatch(change))
}

// inBatch returns a function that makes changes in one batch.
func (db *database) inBatch(change func(*batch) error) func() error {
	return func() error {
		b := &batch{writes: db.badger.NewWriteBatch()}
		defer b.writes.Cancel()
		err := change(b)
		if err == nil {
			err = b.writes.Flush()
		}
		db.bytes.Add(b.bytes)
		return err
	}
}

// write calls a function that writes, if the disk may be written to now.
func (db *database) write(records func() error) error {
	db.writing.RLock()
	defer db.writing.RUnlock()
	return db.writeLocked(records)
}

// writeLocked is write for a caller that has locked writing.
func (db *database) writeLocked(records func() error) error {
	db.use.RLock()
	defer db.use.RUnlock()
	err := db.mayWrite(0)
	if err == nil {
		err = records()
	}
	if err != nil {
		return fmt.Errorf("write to the index: %w", err)
	}
	return nil
}

// mayWrite returns why n further bytes are not written now, or nil. The caller has locked use.
func (db *database) mayWrite(n int64) error {
	if db.inMemory {
		return nil
	}
	return errors.Join(db.folder.CheckFree(n, disk.IndexReserve), db.health.Refuses(), db.checkFiles())
}

// batch collects changes that are written together.
type batch struct {
	writes *badger.WriteBatch
	bytes  int64 // that are written
}

func (b *batch) put(e entry) error {
	raw, err := json.Marshal(e.value)
	if err != nil {
		return err
	}
	b.bytes += int64(len(e.key) + len(raw))
	return b.writes.Set(e.key, raw)
}

func (b *batch) remove(key []byte) error { return b.writes.Delete(key) }

func (db *database) isInMemory() bool {
	db.use.RLock()
	defer db.use.RUnlock()
	return db.inMemory
}
