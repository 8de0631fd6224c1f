package records

import "encoding/json"

// These methods write records that this version of Larder does not write.

// SetVersion makes the index one of another version.
func (ix *Index) SetVersion(version int) error {
	ix.format.Version = version
	return ix.putFormat()
}

// PutScrub records a scrub position as it is given.
func (ix *Index) PutScrub(raw string) error {
	return ix.db.putUnsaved(entry{[]byte(scrubKey), json.RawMessage(raw)})
}
