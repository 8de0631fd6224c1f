package records

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Suspect has a value when a read or a write gave reason to call Repair.
func (ix *Index) Suspect() <-chan struct{} { return ix.db.suspect }

// Repair checks whether somebody removed or changed the files of the index. If so, it sets them
// aside, as [Open] does, puts an index in their place that is made from the snapshot, and
// reports true. If the disk does not take that, the new index is in memory. After a value of
// Suspect, suspicious is true: then all files are read. The log tells the damage.
//
// Badger maps the files into memory. If these mappings are whole, as after files were only
// removed, Repair first writes a snapshot, for which it calls reserve as [Index.Save] does.
// Otherwise the changes since the latest snapshot are lost. Other methods wait while Repair
// replaces the index.
func (ix *Index) Repair(ctx context.Context, suspicious bool, reserve Reserve) (replaced bool, err error) {
	ix.saving.Lock()
	defer ix.saving.Unlock()
	damage := ix.db.damage(suspicious)
	if damage == nil {
		return false, nil
	}
	ix.formatMu.Lock()
	defer ix.formatMu.Unlock()
	if ix.db.files.readable() {
		ix.rescue(ctx, reserve)
	}
	ix.db.makeFolder(damage)
	ix.db.use.Lock()
	defer ix.db.use.Unlock()
	after, err := ix.db.replace(damage)
	if err != nil {
		return false, fmt.Errorf("replace the damaged index: %w", err)
	}
	ix.format, ix.saved = after.format, -1
	return true, nil
}

// damage returns what was found wrong with the files, or nil.
func (db *database) damage(suspicious bool) error {
	db.use.RLock()
	defer db.use.RUnlock()
	if db.inMemory {
		return nil
	}
	return db.files.thorough(suspicious)
}

// rescue writes a snapshot of what is mapped into memory. The caller has locked saving and
// formatMu.
func (ix *Index) rescue(ctx context.Context, reserve Reserve) {
	if ix.db.changes.Load() == ix.saved {
		return
	}
	ix.format.Snapshot++
	if err := replaceSnapshot(ctx, ix.db, ix.format.Snapshot, reserve); err != nil {
		ix.db.log.Warn("what changed in the index since its latest snapshot is lost", "error", err)
	}
}

// makeFolder makes the folder of the index if that has gone, or if there is something else in
// its place. Without it, Badger does not end: it tries to write its last table again and
// again, and a method that waits for that keeps use locked.
func (db *database) makeFolder(damage error) {
	path := db.folder.Index()
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		_ = opener{db.folder, db.health, db.workers, db.log}.setAside(damage) // if it fails, so does Mkdir
	}
	_ = db.folder.Mkdir(path) // if it fails, the new index is in memory
}

// replace closes the database, and puts another one in its place. The caller has locked use
// for writing.
func (db *database) replace(damage error) (*Index, error) {
	o := opener{db.folder, db.health, db.workers, db.log}
	err := db.closeInTime()
	if err == nil || !errors.Is(err, errStuck) {
		err = errors.Join(db.health.Refuses(), o.setAside(damage))
	}
	var ix *Index
	if err == nil {
		ix, err = o.restore()
	}
	if err != nil {
		db.log.Error("the index was damaged and cannot be made again on this disk; until the next start, tags and memberships are kept in memory only",
			"error", errors.Join(damage, err))
		if ix, err = o.inMemory(); err != nil {
			return nil, err
		}
	}
	db.badger, db.inMemory, db.files = ix.db.badger, ix.db.inMemory, ix.db.files
	select {
	case <-db.suspect: // it was about the old files
	default:
	}
	return ix, nil
}
