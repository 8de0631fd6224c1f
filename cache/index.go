package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
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
	db *badger.DB
}

type blobRecord struct {
	Size      int64     `json:"size"`
	MediaType string    `json:"mediaType,omitempty"` // of a manifest
	Fetched   time.Time `json:"fetched"`
}

// memberRecord says that a repository holds a blob, and what the manifest that
// names it says of it. Size is -1 where no manifest does.
type memberRecord struct {
	Size int64 `json:"size"`
}

type tagRecord struct {
	Digest  digest.Digest `json:"digest"`
	Checked time.Time     `json:"checked"` // when the upstream last said so
}

func blobKey(d digest.Digest) []byte { return []byte("blob/" + d.String()) }
func memberKey(r Repository, d digest.Digest) []byte {
	return []byte("member/" + r.String() + "@" + d.String())
}
func tagKey(r Repository, tag string) []byte { return []byte("tag/" + r.String() + ":" + tag) }

// openIndex opens the index, or begins a new one beside what cannot be read.
func openIndex(dir string, log *slog.Logger) (*index, error) {
	db, err := badger.Open(indexOptions(dir, log))
	if err == nil {
		return &index{db: db}, nil
	}
	aside := fmt.Sprintf("%s.broken-%s", dir, time.Now().UTC().Format("20060102T150405.000"))
	if moveErr := os.Rename(dir, aside); moveErr != nil {
		return nil, fmt.Errorf("open the index: %w", errors.Join(err, moveErr))
	}
	log.Error("the index could not be read and was set aside; tags and memberships are learnt anew from the upstreams",
		"error", err, "aside", aside)
	if db, err = badger.Open(indexOptions(dir, log)); err != nil {
		return nil, fmt.Errorf("begin a new index: %w", err)
	}
	return &index{db: db}, nil
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
		WithValueThreshold(1 << 10).
		WithBlockCacheSize(0).
		WithIndexCacheSize(2 << 20).
		WithCompression(0).
		WithNumCompactors(2).
		WithMetricsEnabled(false).
		WithDetectConflicts(false)
}

func (ix *index) close() error {
	if err := ix.db.Close(); err != nil {
		return fmt.Errorf("close the index: %w", err)
	}
	return nil
}

// get reads a record into v. It returns fs.ErrNotExist where there is none; a
// record that cannot be read is none.
func (ix *index) get(key []byte, v any) error {
	err := ix.db.View(func(txn *badger.Txn) error {
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
		return fmt.Errorf("read %s from the index: %w: %w", key, fs.ErrNotExist, err)
	}
	return nil
}

// entry is a record to be written.
type entry struct {
	key   []byte
	value any
}

// put writes all entries, or none.
func (ix *index) put(entries ...entry) error {
	err := ix.db.Update(func(txn *badger.Txn) error {
		for _, e := range entries {
			raw, err := json.Marshal(e.value)
			if err != nil {
				return err
			}
			if err := txn.Set(e.key, raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write to the index: %w", err)
	}
	return nil
}

func (ix *index) remove(key []byte) error {
	if err := ix.db.Update(func(txn *badger.Txn) error { return txn.Delete(key) }); err != nil {
		return fmt.Errorf("remove %s from the index: %w", key, err)
	}
	return nil
}

func (ix *index) addBlob(d digest.Digest, r blobRecord) error {
	return ix.put(entry{blobKey(d), r})
}

// tags returns the known tags of a repository, sorted.
func (ix *index) tags(r Repository) ([]string, error) {
	prefix := tagKey(r, "")
	var tags []string
	err := ix.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			tags = append(tags, string(bytes.TrimPrefix(it.Item().Key(), prefix)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the tags of %s: %w", r, err)
	}
	return tags, nil
}

// indexLog hands Badger's own log to ours, a level down: its news is of no use
// to who runs a cache.
type indexLog struct{ log *slog.Logger }

func (l indexLog) Errorf(f string, a ...any)   { l.print(slog.LevelError, f, a) }
func (l indexLog) Warningf(f string, a ...any) { l.print(slog.LevelWarn, f, a) }
func (l indexLog) Infof(f string, a ...any)    { l.print(slog.LevelDebug, f, a) }
func (l indexLog) Debugf(string, ...any)       {}

func (l indexLog) print(level slog.Level, format string, args []any) {
	l.log.Log(nil, level, "index: "+strings.TrimSpace(fmt.Sprintf(format, args...))) //nolint:staticcheck // Badger has no context to give
}
