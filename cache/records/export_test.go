package records

import "encoding/json"

// These methods write records that only other versions of Larder write, or none.

// SetVersion records another version of the format.
func (ix *Index) SetVersion(version int) error {
	ix.format.Version = version
	return ix.putFormat()
}

// PutScrub records a scrub position as it is given.
func (ix *Index) PutScrub(raw string) error {
	return ix.db.putUnsaved(entry{[]byte(scrubKey), json.RawMessage(raw)})
}
