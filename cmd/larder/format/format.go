// Package format writes sizes and times as the commands show them to people.
package format

import (
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Size returns a number of bytes as text: 4.0 MiB. Negative numbers are 0.
func Size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Remaining returns the time until then, rounded to minutes: 11h59m.
func Remaining(until time.Time) string {
	return strings.TrimSuffix(time.Until(until).Round(time.Minute).String(), "0s")
}
