package records

import (
	"encoding/json"
)

// Verdicts returns all verdicts.
func (ix *Index) Verdicts() ([]Verdict, error) {
	var all []Verdict
	err := ix.db.each(verdictPrefix, func(name, raw []byte) error {
		var e Expiry
		repo, d, ok := parseDigest(string(name))
		if ok && json.Unmarshal(raw, &e) == nil {
			all = append(all, Verdict{repo, d, e})
		}
		return nil
	})
	return all, err
}

// ReplaceVerdicts replaces all verdicts by others. It writes only what changed,
// in one batch.
func (ix *Index) ReplaceVerdicts(verdicts []Verdict) error {
	old := make(map[string]string)
	err := ix.db.each(verdictPrefix, func(name, raw []byte) error {
		old[verdictPrefix+string(name)] = string(raw)
		return nil
	})
	if err != nil {
		return err
	}
	var changed []entry
	for _, v := range verdicts {
		key := verdictKey(v.Repository, v.Digest)
		raw, err := json.Marshal(v.Expiry)
		if err != nil {
			return err
		}
		if old[string(key)] != string(raw) {
			changed = append(changed, entry{key, json.RawMessage(raw)})
		}
		delete(old, string(key))
	}
	if len(changed) == 0 && len(old) == 0 {
		return nil
	}
	return ix.db.update(func(b *batch) error {
		for _, e := range changed {
			if err := b.put(e); err != nil {
				return err
			}
		}
		for key := range old {
			if err := b.remove([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}
