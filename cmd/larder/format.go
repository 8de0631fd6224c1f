package main

import (
	"time"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
)

// nothing is the text of an empty cell.
const nothing = "-"

// age says how long ago a time was; the zero time is nothing.
func age(at time.Time) string {
	if at.IsZero() {
		return nothing
	}
	return humanize.Time(at)
}

// shortDigest is enough of a digest to tell images apart.
func shortDigest(d digest.Digest) string {
	if d.Validate() != nil {
		return d.String()
	}
	return d.Encoded()[:12]
}
