package ecrtest

import "github.com/opencontainers/go-digest"

// Stats counts the requests to a server since it was made, or since ResetStats.
type Stats struct {
	Tokens   int        // issued by the ECR API
	Requests map[Op]int // that arrived, also those that failed, by single Op
	Heads    map[Op]int // of these, the HEAD requests
	Exceeded int        // of these, the ones above SetRateLimit or SetPullLimit
	Blobs    map[digest.Digest]BlobStats
}

// Bytes returns how many bytes of blobs storage wrote in total.
func (s Stats) Bytes() int64 {
	var n int64
	for _, b := range s.Blobs {
		n += b.Bytes
	}
	return n
}
