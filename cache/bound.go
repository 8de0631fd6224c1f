package cache

import (
	"errors"

	"github.com/larder-registry/larder/cache/disk"
)

// The records of the index have a bound of their own, so that manifests that name much do not
// take the space of blobs. An image of 20 layers has some 10 KB of records.
const (
	// recordsShare is the part of the cache that records may take: one in so many bytes.
	recordsShare = 16
	// minRecords is the bound of a small cache, in bytes.
	minRecords = 16 << 20
	// recordBytes is about what the records take for each blob that a manifest names.
	recordBytes = 300
	// manyRecords is up to what a manifest is kept even if the bound is reached, in bytes. The
	// eviction of what is least recently used makes up for it.
	manyRecords = 64 << 10
)

// errIndexFull says that the records of a manifest do not fit.
var errIndexFull = errors.New("it names much, and the index has no space for that")

// maxRecords is what the records may take, in bytes.
func maxRecords(folder *disk.Folder, maxSize int64) int64 {
	if maxSize == 0 {
		maxSize, _ = disk.Size(folder.Dir()) // 0 if the disk cannot be asked
	}
	return max(maxSize/recordsShare, minRecords)
}
