package records

import (
	"encoding/json"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

// Tag returns what a tag points to.
func (ix *Index) Tag(repo Repository, tag string) (Tag, error) {
	var rec Tag
	err := ix.db.get(tagKey(repo, tag), &rec)
	return rec, err
}

// PutTag records what a tag points to.
func (ix *Index) PutTag(repo Repository, tag string, rec Tag) error {
	return ix.db.put(entry{tagKey(repo, tag), rec})
}

// RemoveTag removes a tag, and what is pending for it. It is no error if there is none.
func (ix *Index) RemoveTag(repo Repository, tag string) error {
	return ix.db.remove(tagKey(repo, tag), pendingKey(repo, tag))
}

// Tags returns the tags of a repository, sorted.
func (ix *Index) Tags(repo Repository) ([]string, error) {
	var tags []string
	err := ix.db.each(tagsPrefix(repo), func(name, _ []byte) error {
		tags = append(tags, string(name))
		return nil
	})
	return tags, err
}

// EachTag calls visit for every tag, until visit returns an error.
func (ix *Index) EachTag(visit func(repo Repository, tag string, rec Tag) error) error {
	return ix.db.each(tagPrefix, func(name, raw []byte) error {
		var rec Tag
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			repo, tag := parseTag(string(name))
			return visit(repo, tag, rec)
		}
		return nil
	})
}

// Resolve returns the digest of the manifest that a pin names. It returns
// fs.ErrNotExist if its tag is not known, or if its digest is not known as a
// manifest of the repository.
func (ix *Index) Resolve(p Pin) (digest.Digest, error) {
	if !isDigest(p.Reference) {
		rec, err := ix.Tag(p.Repository, p.Reference)
		return rec.Digest, err
	}
	d := digest.Digest(p.Reference)
	rec, err := ix.Member(p.Repository, d)
	if err == nil && !rec.Manifest {
		err = fs.ErrNotExist
	}
	return d, err
}

// Pins returns all pins.
func (ix *Index) Pins() (map[Pin]PinRecord, error) {
	pins := make(map[Pin]PinRecord)
	err := ix.db.each(pinPrefix, func(name, raw []byte) error {
		repo, reference := parseImage(string(name))
		var rec PinRecord
		_ = json.Unmarshal(raw, &rec) // a pin holds even if its record cannot be decoded
		pins[Pin{repo, reference}] = rec
		return nil
	})
	return pins, err
}

// Pin returns the record of a pin. It is empty if it cannot be decoded: such a pin holds, too.
func (ix *Index) Pin(p Pin) (PinRecord, error) {
	var raw json.RawMessage
	var rec PinRecord
	err := ix.db.get(pinKey(p), &raw)
	if err == nil {
		_ = json.Unmarshal(raw, &rec)
	}
	return rec, err
}

// PutPin records a pin.
func (ix *Index) PutPin(p Pin, rec PinRecord) error { return ix.db.put(entry{pinKey(p), rec}) }

// RemovePin removes a pin. It returns fs.ErrNotExist if there is none.
func (ix *Index) RemovePin(p Pin) error {
	if _, err := ix.Pin(p); err != nil {
		return err
	}
	return ix.db.remove(pinKey(p))
}
