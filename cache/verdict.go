package cache

import (
	"encoding/json"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
)

const verdictPrefix = "verdict/"

func verdictKey(r Repository, d digest.Digest) []byte {
	return []byte(verdictPrefix + imageName(r, d.String()))
}

// verdicts reads what Doom kept.
func (ix *index) verdicts() ([]Verdict, error) {
	var all []Verdict
	err := ix.each(verdictPrefix, func(item *badger.Item) error {
		var e Expiry
		repo, d, ok := strings.Cut(string(item.Key()[len(verdictPrefix):]), "@")
		if ok && unmarshal(item, &e) == nil {
			all = append(all, Verdict{cutRepository(repo), digest.Digest(d), e})
		}
		return nil
	})
	return all, err
}

// replaceVerdicts keeps these in place of all others. It writes what differs.
func (ix *index) replaceVerdicts(verdicts []Verdict) error {
	old := make(map[string]string)
	err := ix.each(verdictPrefix, func(item *badger.Item) error {
		return item.Value(func(raw []byte) error {
			old[string(item.Key())] = string(raw)
			return nil
		})
	})
	if err != nil {
		return err
	}
	changed := make(map[string][]byte)
	for _, v := range verdicts {
		key := string(verdictKey(v.Repository, v.Digest))
		raw, err := json.Marshal(v.Expiry)
		if err != nil {
			return err
		}
		if old[key] != string(raw) {
			changed[key] = raw
		}
		delete(old, key)
	}
	if len(changed) == 0 && len(old) == 0 {
		return nil
	}
	return ix.update(func(batch *badger.WriteBatch) error {
		for key, raw := range changed {
			if err := batch.Set([]byte(key), raw); err != nil {
				return err
			}
		}
		for key := range old {
			if err := batch.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}
