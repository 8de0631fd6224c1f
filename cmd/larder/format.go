package main

import (
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
)

// nothing is the text of an empty cell.
const nothing = "-"

// size formats a number of bytes; negative numbers are 0.
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// age says how long ago a time was; the zero time is nothing.
func age(at time.Time) string {
	if at.IsZero() {
		return nothing
	}
	return humanize.Time(at)
}

// remaining is the time until then, rounded to minutes: 11h59m.
func remaining(until time.Time) string {
	return strings.TrimSuffix(time.Until(until).Round(time.Minute).String(), "0s")
}

// shortDigest is enough of a digest to tell images apart.
func shortDigest(d digest.Digest) string {
	if d.Validate() != nil {
		return d.String()
	}
	return d.Encoded()[:12]
}
