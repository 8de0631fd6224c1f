package records

import "encoding/json"

// SetVersion makes the index one of another version.
func (ix *Index) SetVersion(version int) error {
	ix.format.Version = version
	return ix.putFormat()
}

// PutScrub records a scrub position that this version cannot write.
func (ix *Index) PutScrub(raw string) error {
	return ix.db.putUnsaved(entry{[]byte(scrubKey), json.RawMessage(raw)})
}
