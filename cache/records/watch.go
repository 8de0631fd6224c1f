package records

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// ErrDamaged says that files of the index were removed or changed while this process has it
// open. Nothing is recorded before [Index.Repair] has replaced the index.
var ErrDamaged = errors.New("files of the index were removed or changed while it is in use")

// watch notices when somebody removes or changes the files of a database that is open. Badger
// maps them into memory, does not check them again, and ends the process if it meets damage. A
// table never changes once the list of tables names it, so watch compares the size, the inode and
// the time of change of its file, and reads the table only if one of these differs.
//
// Its methods may be called from several goroutines at once.
type watch struct {
	opts badger.Options

	mu     sync.Mutex             // guards what follows, during I/O
	tables map[uint64]fs.FileInfo // as they were when they were whole, by their numbers; nil for damaged ones
	log    string                 // the path of the log that is written to
}

func newWatch(opts badger.Options) *watch {
	return &watch{opts: opts, tables: make(map[uint64]fs.FileInfo)}
}

// trust says that the tables were just read and found whole.
func (w *watch) trust() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids, err := w.readList()
	for _, id := range ids {
		if err == nil {
			w.tables[id], err = os.Lstat(w.table(id))
		}
	}
	return err
}

func (w *watch) table(id uint64) string { return table.NewFilename(id, w.opts.Dir) }

// quick compares the tables that are known with their files, and checks the log that is
// written to: a write beyond its end would end the process. It costs some system calls.
func (w *watch) quick() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.checkList(); err != nil {
		return err
	}
	for id, known := range w.tables {
		now, err := w.compare(id, known)
		if err := w.note(id, now, err); err != nil {
			return err
		}
	}
	return w.checkLog()
}

// thorough is quick, and reads tables that are new; if suspicious is true, it reads all. Other
// methods do not wait while it reads a table.
func (w *watch) thorough(suspicious bool) error {
	ids, err := w.readList()
	if err != nil {
		return err
	}
	known := w.keep(ids)
	var damage error
	for _, id := range ids {
		before := known[id]
		if suspicious {
			before = nil
		}
		now, err := w.compare(id, before)
		w.mu.Lock()
		err = w.note(id, now, err)
		w.mu.Unlock()
		damage = cmp.Or(err, damage)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return cmp.Or(damage, w.checkLog())
}

// keep forgets all tables but some: Badger has compacted the others. It returns what is known.
func (w *watch) keep(ids []uint64) map[uint64]fs.FileInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.tables, func(id uint64, _ fs.FileInfo) bool { return !slices.Contains(ids, id) })
	return maps.Clone(w.tables)
}

// readable reports whether what is mapped into memory is whole as far as thorough has found:
// each table is as it was, or was removed, which does not change what is mapped.
func (w *watch) readable() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, known := range w.tables {
		now, err := os.Lstat(w.table(id))
		if known == nil || err == nil && os.SameFile(known, now) && !sameState(known, now) {
			return false
		}
	}
	return true
}

// compare reads a table unless the file system says the same about it as before. It returns
// what the file system says now, which is nil if there is no file.
func (w *watch) compare(id uint64, before fs.FileInfo) (now fs.FileInfo, err error) {
	path := w.table(id)
	now, err = os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if before != nil && sameState(before, now) {
		return now, nil
	}
	return now, checkTable(path)
}

// note records what compare found, and returns the damage. The file of a damaged table may be
// another one than the one that is mapped; then what is known of that stays. The caller has
// locked mu.
func (w *watch) note(id uint64, now fs.FileInfo, problem error) error {
	if problem == nil {
		w.tables[id] = now
		return nil
	}
	// Badger may have compacted it just now.
	if ids, err := w.readList(); err == nil && !slices.Contains(ids, id) {
		delete(w.tables, id)
		return nil
	}
	if known := w.tables[id]; now != nil && (known == nil || os.SameFile(known, now)) {
		w.tables[id] = nil
	}
	return fmt.Errorf("%w: table %d: %w", ErrDamaged, id, problem)
}

func sameState(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// checkList fails if the list of tables has gone: then it is of no use to look for the rest.
func (w *watch) checkList() error {
	if _, err := os.Lstat(filepath.Join(w.opts.Dir, badger.ManifestFilename)); err != nil {
		return fmt.Errorf("%w: the list of its tables: %w", ErrDamaged, err)
	}
	return nil
}

// readList returns the numbers of the tables.
func (w *watch) readList() (ids []uint64, err error) {
	for range patience {
		if ids, err = listTables(w.opts); err == nil {
			return ids, nil
		}
		<-time.After(pause) // Badger may be writing to it
	}
	return nil, fmt.Errorf("%w: the list of its tables: %w", ErrDamaged, err)
}

// A file that Badger creates, or writes to, may be found half done. So what seems damaged is
// looked at several times.
const (
	patience = 5
	pause    = 10 * time.Millisecond
)

// checkLog checks that the log that is written to has the size that Badger gave it.
func (w *watch) checkLog() error {
	want := 2 * w.opts.MemTableSize
	if info, err := os.Lstat(w.log); err == nil && info.Size() == want {
		return nil
	}
	var problem error
	for range patience {
		logs, err := filepath.Glob(filepath.Join(w.opts.Dir, logPattern))
		if err != nil {
			return err
		}
		if len(logs) == 0 {
			problem = errors.New("the log has gone")
		} else {
			w.log = slices.MaxFunc(logs, func(a, b string) int { // their names are numbers of at least five digits
				return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
			})
			var info fs.FileInfo
			info, problem = os.Lstat(w.log)
			if problem == nil && info.Size() == want {
				return nil
			}
			if problem == nil {
				problem = fmt.Errorf("log %s has %d bytes and should have %d", filepath.Base(w.log), info.Size(), want)
			}
		}
		<-time.After(pause)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, problem)
}
