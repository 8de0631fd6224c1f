package records

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/larder-registry/larder/cache/disk"
)

// Open opens the index of a folder, which the caller closes. An index that cannot
// be read is set aside, and a new one is made from the snapshot. As long as that
// lacks records of manifests, [Index.Rebuilding] is true. If the disk fails, or
// has no space for an index, the index is in memory only: see [Index.InMemory].
// Nothing is written while health refuses writes. So many workers merge the tables of the
// index as it grows: at least two, or none for an index that stays small.
//
// Open reads all files of the index, or the snapshot: a second for a million
// blobs, or some seconds.
func Open(folder *disk.Folder, health *disk.Health, workers int, log *slog.Logger) (*Index, error) {
	o := opener{folder, health, workers, log}
	if err := folder.FreeForIndex(); err != nil {
		log.Error("the index cannot be opened on this disk; until the next start, tags and memberships are kept in memory only",
			"error", err)
		return o.inMemory()
	}
	ix, err := o.onDisk()
	if err != nil {
		log.Error("the index can be neither opened nor rebuilt; until the next start, tags and memberships are kept in memory only",
			"error", err)
		return o.inMemory()
	}
	if err := folder.MakeBallast(); err != nil {
		log.Warn("there is no ballast: the index may be lost if the disk fills up", "error", err)
	}
	return ix, nil
}

// opener opens an index, one way or another.
type opener struct {
	folder *disk.Folder
	health *disk.Health
	// workers is how many goroutines of Badger merge tables: none, or at least two.
	workers int
	log     *slog.Logger
}

func (o opener) open(opts badger.Options) (*database, error) {
	db, err := openBadger(opts.WithNumCompactors(o.workers))
	if err != nil {
		return nil, err
	}
	return &database{
		folder:   o.folder,
		health:   o.health,
		workers:  o.workers,
		log:      o.log,
		suspect:  make(chan struct{}, 1),
		badger:   db,
		inMemory: opts.InMemory,
		files:    newWatch(opts),
	}, nil
}

// onDisk opens the index on disk, or makes a new one there.
func (o opener) onDisk() (*Index, error) {
	attempts, err := o.countAttempt()
	if err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	ix, err := o.openOrRestore(attempts)
	if err == nil {
		_ = o.folder.Remove(o.folder.IndexOpening()) // an attempt too many does no harm
	}
	return ix, err
}

func (o opener) openOrRestore(attempts int64) (*Index, error) {
	if _, err := os.Lstat(o.folder.Index()); err == nil {
		err = errCrashes
		if attempts <= maxAttempts {
			var ix *Index
			if ix, err = o.existing(); err == nil {
				return ix, nil
			}
		}
		if err := o.setAside(err); err != nil {
			return nil, err
		}
	}
	return o.restore()
}

// maxAttempts is how many times in a row a process may end while it opens the
// index, before the index counts as the reason: Badger panics over damaged
// tables, in goroutines of its own. A lower number would blame an index for
// processes that were killed.
const maxAttempts = 3

var errCrashes = fmt.Errorf("the last %d attempts to open it ended the process", maxAttempts)

// countAttempt notes an attempt to open the index, and returns how many
// attempts are noted.
func (o opener) countAttempt() (int64, error) {
	f, err := o.folder.Create(o.folder.IndexOpening(), os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := o.folder.Write(f, []byte("x")); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// setAside renames an index that cannot be read, in place of an older one.
func (o opener) setAside(problem error) error {
	older, err := filepath.Glob(o.folder.Index() + ".broken-*")
	for _, dir := range older {
		err = errors.Join(err, o.folder.RemoveAll(dir))
	}
	if err != nil {
		return fmt.Errorf("remove an index that was set aside before: %w", err)
	}
	aside := fmt.Sprintf("%s.broken-%s", o.folder.Index(), time.Now().UTC().Format("20060102T150405.000"))
	if err := o.folder.Rename(o.folder.Index(), aside); err != nil {
		return fmt.Errorf("set the index aside: %w", errors.Join(problem, err))
	}
	o.log.Error("the index could not be read and was set aside; it is rebuilt from the files and its snapshot",
		"error", problem, "aside", aside)
	return nil
}

// existing opens the index on disk. It fails if that is not complete.
func (o opener) existing() (*Index, error) {
	opts := badgerOptions(o.folder.Index(), o.log)
	if err := checkFiles(opts); err != nil {
		return nil, err
	}
	db, err := o.open(opts)
	if err != nil {
		return nil, err
	}
	ix := newIndex(db)
	if err = db.files.trust(); err == nil {
		err = db.get([]byte(formatKey), &ix.format)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("it is not complete")
	case err == nil && ix.format.Version != formatVersion:
		err = fmt.Errorf("it has version %d, and this Larder reads version %d", ix.format.Version, formatVersion)
	}
	if err != nil {
		return nil, errors.Join(err, db.badger.Close())
	}
	o.catchUp(ix)
	return ix, nil
}

// catchUp loads the snapshot if that contains records that the index has lost.
func (o opener) catchUp(ix *Index) {
	f, number, err := openSnapshot(o.folder.Snapshot())
	if err != nil {
		return
	}
	defer f.Close()
	if number <= ix.format.Snapshot {
		return
	}
	o.log.Warn("the index has lost its latest records; they are taken from the snapshot")
	if err := load(ix.db, f); err != nil {
		o.warnSnapshot(err)
		return
	}
	ix.format.Snapshot, ix.format.Rebuilding, ix.format.Canonical = number, true, false
	if err := ix.putFormat(); err != nil {
		o.log.Warn("the index could not be brought up to date", "error", err)
	}
}

// restore makes a new index from the snapshot, if there is one. The caller of
// Open adds what the files of manifests say.
func (o opener) restore() (*Index, error) {
	if err := checkRestore(o.folder); err != nil {
		o.log.Error("the disk has no space to rebuild the index; until the next start, it is kept in memory only", "error", err)
		return o.inMemory()
	}
	db, err := o.open(bulkOptions(o.folder.Index(), o.log))
	if err != nil {
		return nil, fmt.Errorf("begin a new index: %w", err)
	}
	ix := newIndex(db)
	f, number, err := openSnapshot(o.folder.Snapshot())
	if err == nil {
		err = errors.Join(loadNew(db, f), f.Close())
	}
	switch {
	case err == nil:
		ix.format.Snapshot = number
		o.log.Info("the index was rebuilt from its snapshot")
	case !errors.Is(err, fs.ErrNotExist):
		o.warnSnapshot(err)
	}
	err = nil // without a snapshot, the index begins empty
	if o.folder.HasBlobs() {
		ix.format.Rebuilding = true
		err = ix.PutScrubPosition(ScrubPosition{AtOnce: true})
	}
	if err == nil {
		err = ix.putFormat() // last: an index without it is not complete
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin a new index: %w", err), db.badger.Close())
	}
	return ix, nil
}

// inMemory makes an index in memory from the snapshot.
func (o opener) inMemory() (*Index, error) {
	db, err := o.open(badgerOptions("", o.log).WithInMemory(true))
	if err != nil {
		return nil, fmt.Errorf("open an index in memory: %w", err)
	}
	ix := newIndex(db)
	ix.format.Rebuilding = true
	if err := loadInMemory(db); err != nil {
		o.warnSnapshot(err)
	}
	return ix, nil
}

func (o opener) warnSnapshot(err error) {
	o.log.Warn("the snapshot of the index could not be read, and is ignored", "error", err)
}
