package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
)

// Repository is a repository of one upstream, as in
// {"public.ecr.aws", "nginx/nginx"}.
type Repository struct {
	Upstream, Name string
}

func (r Repository) String() string { return r.Upstream + "/" + r.Name }

// index holds what files cannot tell. FORMAT.md lists the keys. It is safe for
// concurrent use; every method is one transaction.
type index struct {
	db     *badger.DB
	folder *disk.Folder
	// volatile is an index in memory, for a disk that has no room for one. What
	// the one on disk says is not known until there is.
	volatile bool
	format   formatRecord // owned by who opens the index; then Store.saved guards it
	changes  atomic.Int64 // how often what a snapshot has was written
	// health may refuse writes. Set once the store is made; nil before.
	health *disk.Health

	closing sync.RWMutex // held for reading while the tables, which are mapped into memory, are read
}

type blobRecord struct {
	Size    int64     `json:"size"`
	Fetched time.Time `json:"fetched"`

	// Of a manifest or an index:
	MediaType string          `json:"mediaType,omitempty"`
	Children  []digest.Digest `json:"children,omitempty"`
	Subject   digest.Digest   `json:"subject,omitempty"` // see Holding
}

// isManifest reports whether all is known of a manifest. Of one that a snapshot
// told of, only the type is, until its file is read.
func (r blobRecord) isManifest() bool { return r.MediaType != "" && r.Size > 0 }

// memberRecord says that a repository holds a blob or a manifest, and what the
// manifest that names it says of it. Size is -1 where no manifest does.
type memberRecord struct {
	Size     int64 `json:"size"`
	Manifest bool  `json:"manifest,omitempty"`
}

type tagRecord struct {
	Digest  digest.Digest `json:"digest"`
	Checked time.Time     `json:"checked"` // when the upstream last said so
}

const (
	blobPrefix = "blob/"
	usedPrefix = "used/"
	tagPrefix  = "tag/"

	memberPrefix = "member/"
)

func blobKey(d digest.Digest) []byte { return []byte(blobPrefix + d.String()) }
func usedKey(d digest.Digest) []byte { return []byte(usedPrefix + d.String()) }
func memberKey(r Repository, d digest.Digest) []byte {
	return []byte(membersOf(d) + r.String())
}

// membersOf is how the keys of all repositories that hold a blob begin.
func membersOf(d digest.Digest) string { return memberPrefix + d.String() + "/" }

func tagKey(r Repository, tag string) []byte { return []byte(tagPrefix + r.String() + ":" + tag) }

// splitTagKey undoes tagKey. An upstream may have a port; a tag has no colon.
func splitTagKey(key string) (r Repository, tag string) {
	rest := strings.TrimPrefix(key, tagPrefix)
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return Repository{}, ""
	}
	r.Upstream, r.Name, _ = strings.Cut(rest[:i], "/")
	return r, rest[i+1:]
}

// openIndex opens the index, or begins a new one beside what cannot be read.
func openIndex(l *disk.Folder, log *slog.Logger) (*index, error) {
	if err := l.FreeForIndex(); err != nil {
		log.Error("the disk has no room to open the index; until the next start, tags and memberships are kept in memory only",
			"error", err)
		return volatileIndex(l, log)
	}
	ix, err := recoverIndex(l, log)
	if err != nil {
		log.Error("the index can neither be read nor made anew; until the next start, tags and memberships are kept in memory only",
			"error", err)
		return volatileIndex(l, log)
	}
	if err := l.MakeBallast(); err != nil {
		log.Warn("no ballast: the index may be lost should the disk fill up", "error", err)
	}
	return ix, nil
}

func recoverIndex(l *disk.Folder, log *slog.Logger) (*index, error) {
	attempts, err := countOpening(l)
	if err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	if _, err := os.Lstat(l.Index()); err == nil {
		err = errCrashes
		if attempts <= maxOpenings {
			var ix *index
			if ix, err = readIndex(l, log); err == nil {
				return ix.opened(), nil
			}
		}
		if err := setAside(l, err, log); err != nil {
			return nil, err
		}
	}
	ix, err := restoreIndex(l, log)
	if err != nil {
		return nil, err
	}
	return ix.opened(), nil
}

// setAside makes place for a new index.
func setAside(l *disk.Folder, problem error, log *slog.Logger) error {
	if err := removeBroken(l); err != nil {
		return fmt.Errorf("remove an index that was set aside before: %w", err)
	}
	aside := fmt.Sprintf("%s.broken-%s", l.Index(), time.Now().UTC().Format("20060102T150405.000"))
	if err := l.Rename(l.Index(), aside); err != nil {
		return fmt.Errorf("set the index aside: %w", errors.Join(problem, err))
	}
	log.Error("the index could not be read and was set aside; it is made anew from the files and its snapshot",
		"error", problem, "aside", aside)
	return nil
}

func (ix *index) opened() *index {
	_ = ix.folder.Remove(ix.folder.IndexOpening()) // a note too many does no harm
	return ix
}

// removeBroken makes place for the latest index that was set aside.
func removeBroken(l *disk.Folder) error {
	all, err := filepath.Glob(l.Index() + ".broken-*")
	for _, dir := range all {
		err = errors.Join(err, l.RemoveAll(dir))
	}
	return err
}

// maxOpenings is how often in a row a process may end while it opens the index
// before the index is taken to be why: Badger panics, in goroutines of its own,
// over tables that are damaged. Fewer would blame an index for a kill.
const maxOpenings = 3

var errCrashes = fmt.Errorf("the last %d attempts to open it ended the process", maxOpenings)

// countOpening notes that the index is about to be opened, and returns how many
// such notes there are.
func countOpening(l *disk.Folder) (int64, error) {
	f, err := l.Create(l.IndexOpening(), os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := l.Write(f, []byte("x")); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// indexOptions tunes Badger for a node: some megabytes of memory and of disk,
// where its defaults are made for servers. Writes are not synced one by one: a
// power cut may forget the latest records, which costs a question upstream.
func indexOptions(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(indexLog{log}).
		WithMemTableSize(4 << 20).
		WithNumMemtables(2).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(4 << 20).
		WithValueLogFileSize(16 << 20).
		WithValueThreshold(512 << 10). // in the tables, which have checksums
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithBlockCacheSize(0).
		WithIndexCacheSize(2 << 20).
		WithCompression(0).
		WithNumCompactors(2).
		WithMetricsEnabled(false).
		WithDetectConflicts(false)
}

// close writes what is in memory to disk. Where the disk has no room for that, or
// does not do it in time, the index is left as a crash would leave it: the next
// start recovers it.
func (ix *index) close() error {
	err := error(nil)
	if !ix.volatile {
		err = ix.folder.FreeForIndex()
	}
	if err == nil {
		ix.closing.Lock() // for good: Badger itself refuses what comes later
		defer ix.closing.Unlock()
		err = ix.closeInTime()
	}
	if err != nil {
		return fmt.Errorf("close the index: %w", err)
	}
	return nil
}

// maxClose is how long the index may take to be closed on a disk that fails:
// Badger tries to write again and again, without end.
const maxClose = 5 * time.Second

func (ix *index) closeInTime() error {
	ill := ix.health.Refuses()
	if ill == nil || ix.volatile {
		return ix.db.Close()
	}
	done := make(chan error, 1)
	go func() { done <- ix.db.Close() }() // it may outlive the store, whose process ends
	select {
	case err := <-done:
		return err
	case <-time.After(maxClose):
		return fmt.Errorf("%v were not enough: %w", maxClose, ill)
	}
}

// get reads a record into v. It returns fs.ErrNotExist where there is none.
func (ix *index) get(key []byte, v any) error {
	err := ix.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		return unmarshal(item, v)
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("read %s from the index: %w", key, err)
	}
	return nil
}

// has reports whether there is a record, or what may be one.
func (ix *index) has(key []byte) bool {
	err := ix.view(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		return err
	})
	return !errors.Is(err, badger.ErrKeyNotFound)
}

func (ix *index) view(read func(*badger.Txn) error) error {
	ix.closing.RLock()
	defer ix.closing.RUnlock()
	return ix.db.View(read)
}

// entry is a record to be written.
type entry struct {
	key   []byte
	value any
}

// put writes entries in their order; a crash may lose the last of them.
func (ix *index) put(entries ...entry) error {
	return ix.update(func(batch *badger.WriteBatch) error {
		for _, e := range entries {
			if err := set(batch, e); err != nil {
				return err
			}
		}
		return nil
	})
}

func set(batch *badger.WriteBatch, e entry) error {
	raw, err := json.Marshal(e.value)
	if err != nil {
		return err
	}
	return batch.Set(e.key, raw)
}

// note writes a record that no snapshot has.
func (ix *index) note(e entry) error {
	return ix.write(func(batch *badger.WriteBatch) error { return set(batch, e) })
}

func (ix *index) remove(key []byte) error {
	return ix.update(func(batch *badger.WriteBatch) error { return batch.Delete(key) })
}

// update writes a batch, which may be larger than one of Badger's transactions.
func (ix *index) update(change func(*badger.WriteBatch) error) error {
	defer ix.changes.Add(1)
	return ix.write(change)
}

func (ix *index) write(change func(*badger.WriteBatch) error) error {
	err := error(nil)
	if !ix.volatile {
		err = errors.Join(ix.folder.CheckFree(0, disk.IndexReserve), ix.health.Refuses())
	}
	if err == nil {
		batch := ix.db.NewWriteBatch()
		defer batch.Cancel()
		if err = change(batch); err == nil {
			err = batch.Flush()
		}
	}
	if err != nil {
		return fmt.Errorf("write to the index: %w", err)
	}
	return nil
}

func (ix *index) addBlob(d digest.Digest, r blobRecord) error {
	return ix.put(entry{blobKey(d), r})
}

// forget removes all records of a blob.
func (ix *index) forget(d digest.Digest) error {
	keys := [][]byte{blobKey(d), usedKey(d)}
	var repos []Repository
	prefix := membersOf(d)
	err := ix.each(prefix, func(item *badger.Item) error {
		keys = append(keys, item.KeyCopy(nil))
		repos = append(repos, cutRepository(string(item.Key()[len(prefix):])))
		return nil
	})
	if err != nil {
		return err
	}
	for _, repo := range repos {
		keys = append(keys, ix.aboutImage(repo, d)...)
	}
	return ix.update(func(batch *badger.WriteBatch) error {
		for _, key := range keys {
			if err := batch.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// putUses records when blobs were used, to the second.
func (ix *index) putUses(uses map[digest.Digest]time.Time) error {
	if len(uses) == 0 {
		return nil
	}
	entries := make([]entry, 0, len(uses))
	for d, at := range uses {
		entries = append(entries, entry{usedKey(d), at.Unix()})
	}
	return ix.put(entries...)
}

// each calls visit for every record whose key begins with prefix. The item is
// good until visit returns.
func (ix *index) each(prefix string, visit func(*badger.Item) error) error {
	err := ix.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := visit(it.Item()); err != nil {
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

func unmarshal(item *badger.Item, v any) error {
	return item.Value(func(raw []byte) error { return json.Unmarshal(raw, v) })
}

// tags returns the known tags of a repository, sorted.
func (ix *index) tags(r Repository) ([]string, error) {
	prefix := string(tagKey(r, ""))
	var tags []string
	err := ix.each(prefix, func(item *badger.Item) error {
		tags = append(tags, strings.TrimPrefix(string(item.Key()), prefix))
		return nil
	})
	return tags, err
}

// indexLog hands Badger's own log to ours, a level down: its news is of no use
// to who runs a cache.
type indexLog struct{ log *slog.Logger }

func (l indexLog) Errorf(f string, a ...any)   { l.print(slog.LevelError, f, a) }
func (l indexLog) Warningf(f string, a ...any) { l.print(slog.LevelWarn, f, a) }
func (l indexLog) Infof(f string, a ...any)    { l.print(slog.LevelDebug, f, a) }
func (l indexLog) Debugf(string, ...any)       {}

func (l indexLog) print(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "index: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}
