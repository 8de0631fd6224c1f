package config

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Amount is an amount of disk space, in bytes or as a part of the file system. At
// most one of its fields is set, and neither for 0. No field is negative.
type Amount struct {
	Bytes int64
	// Percent is the part of the file system's size, up to 100.
	Percent float64
}

// Of returns the amount in bytes, rounded down, on a file system of total bytes. An
// amount in bytes does not depend on total and may be larger.
func (a Amount) Of(total int64) int64 {
	if a.Percent == 0 {
		return a.Bytes
	}
	part := float64(total) * a.Percent / 100
	if part >= float64(total) {
		return total // a float64 may not represent it exactly
	}
	return int64(part)
}

// String returns the exact amount in the form of the configuration: 80%, or bytes
// in the unit with the smallest number, such as 1536MiB.
func (a Amount) String() string {
	if a.Percent != 0 {
		return strconv.FormatFloat(a.Percent, 'f', -1, 64) + "%"
	}
	number, name := a.Bytes, "B"
	for _, unit := range []struct {
		name  string
		bytes int64
	}{
		{"kB", humanize.KByte},
		{"KiB", humanize.KiByte},
		{"MB", humanize.MByte},
		{"MiB", humanize.MiByte},
		{"GB", humanize.GByte},
		{"GiB", humanize.GiByte},
		{"TB", humanize.TByte},
		{"TiB", humanize.TiByte},
	} {
		if n := a.Bytes / unit.bytes; n < number && n*unit.bytes == a.Bytes {
			number, name = n, unit.name
		}
	}
	return strconv.FormatInt(number, 10) + name
}

// parseAmount parses the form of String, and every unit of [humanize.ParseBytes].
// Only 0 needs no unit. The error says what was expected.
func parseAmount(s string) (Amount, error) {
	// A comma counts as part of the number, and so makes it invalid: humanize ignores
	// commas and would read 1,5GiB as 15GiB.
	rest := strings.TrimLeft(s, "0123456789.,")
	number, unit := s[:len(s)-len(rest)], strings.TrimSpace(rest)
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return Amount{}, errors.New("a size such as 50GiB or a percentage such as 80%")
	}
	if unit == "%" {
		if n > 100 {
			return Amount{}, errors.New("a percentage of up to 100%")
		}
		return Amount{Percent: n}, nil
	}
	if _, err := humanize.ParseBytes("1" + unit); err != nil || unit == "" && n != 0 {
		return Amount{}, errors.New("a number with a unit such as GiB, MB or %")
	}
	bytes, err := humanize.ParseBytes(number + unit)
	if err != nil || bytes > math.MaxInt64 {
		return Amount{}, errors.New("a size below 8EiB")
	}
	if bytes == 0 && n > 0 { // 0 has a meaning of its own
		return Amount{}, errors.New("a size of one byte at least, or 0")
	}
	return Amount{Bytes: int64(bytes)}, nil
}
