package records

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// maxRenamed bounds the records that are renamed in one batch, whose keys and values are in
// memory.
const maxRenamed = 50_000

// renamed is a record that gets another key.
type renamed struct {
	old, key []byte
	value    json.RawMessage
}

// RenameUpstreams gives the records of an upstream the name that canonical returns for it: an
// earlier release called one upstream by several names. A record that exists under the
// canonical name already stays, and the other is removed. It reads the keys of all records,
// once in the life of an index, and does nothing later. It must be called before the index
// is used. After a crash the next call goes on. With nil no record gets another name, and new
// ones may have any: the next call with a function reads all keys again.
func (ix *Index) RenameUpstreams(canonical func(upstream string) string) error {
	ix.formatMu.Lock()
	defer ix.formatMu.Unlock()
	if ix.format.Canonical == (canonical != nil) {
		return nil
	}
	found := false
	for more := canonical != nil; more; {
		batch, err := ix.db.otherwiseNamed(canonical)
		if err == nil && len(batch) > 0 {
			err = ix.db.rename(batch)
		}
		if err != nil {
			return fmt.Errorf("rename upstreams: %w", err)
		}
		found, more = found || len(batch) > 0, len(batch) == maxRenamed
	}
	ix.format.Canonical = canonical != nil
	if err := ix.putFormat(); err != nil && found {
		return fmt.Errorf("rename upstreams: %w", err)
	}
	return nil // where nothing can be written, the next start reads the keys again
}

// otherwiseNamed returns some of the records whose upstream has another canonical name.
func (db *database) otherwiseNamed(canonical func(upstream string) string) (batch []renamed, err error) {
	err = db.scan("", func(item *badger.Item) error {
		key := canonicalKey(item.Key(), canonical)
		if key == nil {
			return nil
		}
		value, err := item.ValueCopy(nil)
		if batch = append(batch, renamed{item.KeyCopy(nil), key, value}); err == nil && len(batch) == maxRenamed {
			return errEnough
		}
		return err
	})
	return batch, err
}

// rename writes records under their new keys, unless they exist, and removes the old ones.
func (db *database) rename(records []renamed) error {
	exists := make(map[string]bool)
	for _, r := range records {
		is, err := db.has(r.key)
		if err != nil {
			return err
		}
		exists[string(r.key)] = is
	}
	return db.update(func(b *batch) error {
		for _, r := range records {
			if !exists[string(r.key)] {
				if err := b.put(entry{r.key, r.value}); err != nil {
					return err
				}
				exists[string(r.key)] = true // two old names may have the same canonical one
			}
			if err := b.remove(r.old); err != nil {
				return err
			}
		}
		return nil
	})
}

// canonicalKey returns the key of a record with the canonical name of its upstream, or nil if
// it has that, or is about no upstream.
func canonicalKey(key []byte, canonical func(upstream string) string) []byte {
	kind, rest, _ := bytes.Cut(key, []byte("/"))
	begin := len(kind) + 1
	switch string(kind) + "/" {
	case tagPrefix, pinPrefix, pendingPrefix, nextPrefix, verdictPrefix, touchedPrefix, referrersPrefix:
	case memberPrefix:
		dgst, repository, _ := bytes.Cut(rest, []byte("/"))
		begin, rest = begin+len(dgst)+1, repository
	default:
		return nil
	}
	upstream, _, ok := bytes.Cut(rest, []byte("/"))
	name := canonical(string(upstream))
	if !ok || name == string(upstream) {
		return nil
	}
	return slices.Concat(key[:begin], []byte(name), key[begin+len(upstream):])
}
