package records

import (
	"errors"
	"fmt"
	"time"
)

// How long closing the database may take. Badger itself retries a failed write without end.
const (
	maxClose     = 20 * time.Second // its tables in memory have some megabytes
	maxCloseSick = 5 * time.Second  // on a disk that is known to fail
)

// close writes what is in memory to the disk. If the disk has no space for that,
// or does not take it in time, the database is left as a crash would leave it,
// and the next start recovers it.
func (db *database) close() error {
	var err error
	if !db.isInMemory() {
		err = db.folder.FreeForIndex()
	}
	if err == nil {
		db.use.Lock() // waits for readers; Badger itself refuses later ones
		defer db.use.Unlock()
		err = db.closeInTime()
	}
	if err != nil {
		return fmt.Errorf("close the index: %w", err)
	}
	return nil
}

// closeInTime closes Badger. The caller has locked use for writing.
func (db *database) closeInTime() error {
	if db.inMemory {
		return db.badger.Close()
	}
	limit, failure := maxCloseSick, errors.Join(db.health.Refuses(), db.checkFiles())
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
		return fmt.Errorf("%w: it took more than %v: %w", errStuck, limit, failure)
	}
}

// errStuck says that Badger may still be writing to its folder.
var errStuck = errors.New("its database does not end")
