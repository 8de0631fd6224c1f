// These tests use parseAmount, since a configuration does not show its errors alone.

package config

import (
	"math"
	"strings"
	"testing"
)

func TestAmountsAreParsedExactly(t *testing.T) {
	for s, want := range map[string]Amount{
		"50GiB":                {Bytes: 50 << 30},
		"50 GiB":               {Bytes: 50 << 30},
		"50gib":                {Bytes: 50 << 30},
		"50Gi":                 {Bytes: 50 << 30},
		"50G":                  {Bytes: 50e9},
		"500MB":                {Bytes: 500e6},
		"1.5TiB":               {Bytes: 3 << 39},
		"9007199254740993B":    {Bytes: 1<<53 + 1}, // not a float64
		"9223372036854775807B": {Bytes: math.MaxInt64},
		"0":                    {},
		"0%":                   {},
		"0MiB":                 {},
		"80%":                  {Percent: 80},
		"80 %":                 {Percent: 80},
		"2.5%":                 {Percent: 2.5},
		"100%":                 {Percent: 100},
	} {
		if got, err := parseAmount(s); err != nil || got != want {
			t.Errorf("parseAmount(%q) = %#v, %v; want %#v", s, got, err, want)
		}
	}
}

func TestErrorsOfAmountsSayWhatIsExpected(t *testing.T) {
	const (
		form    = "a size such as 50GiB or a percentage such as 80%"
		unit    = "a number with a unit such as GiB, MB or %"
		percent = "a percentage of up to 100%"
		large   = "a size below 8EiB"
	)
	for s, want := range map[string]string{
		"":                      form,
		"GiB":                   form,
		"%":                     form,
		"lots":                  form,
		"-1GiB":                 form,
		"-1%":                   form,
		"1,5GiB":                form,
		"1,000MB":               form,
		"1.000.000kB":           form,
		"inf%":                  form,
		"50 gigs":               unit,
		"50":                    unit,
		"50 ":                   unit,
		"1e12":                  unit,
		"0x10GiB":               unit,
		"5%%":                   unit,
		"50GiB/s":               unit,
		"5\u0665GiB":            unit, // a digit, but not one of ours
		"100.1%":                percent,
		"8EiB":                  large,
		"9223372036854775808B":  large,
		"99999999999999999999k": large,
	} {
		if got, err := parseAmount(s); err == nil || err.Error() != want {
			t.Errorf("parseAmount(%q) = %#v, %v; want %s", s, got, err, want)
		}
	}
}

func TestAmountsArePrintedInTheUnitThatFits(t *testing.T) {
	for want, a := range map[string]Amount{
		"0B":         {},
		"50GiB":      {Bytes: 50 << 30},
		"500MB":      {Bytes: 500e6},
		"1536MiB":    {Bytes: 3 << 29},
		"2TB":        {Bytes: 2e12},
		"268435457B": {Bytes: 256<<20 + 1},
		"80%":        {Percent: 80},
		"2.5%":       {Percent: 2.5},
	} {
		if got := a.String(); got != want {
			t.Errorf("%#v is written as %s, want %s", a, got, want)
		}
	}
}

func TestPercentagesAreOfTheFileSystem(t *testing.T) {
	for _, test := range []struct {
		amount      Amount
		total, want int64
	}{
		{Amount{}, 1000, 0},
		{Amount{Bytes: 2000}, 1000, 2000},
		{Amount{Percent: 5}, 1000, 50},
		{Amount{Percent: 2.5}, 1001, 25},
		{Amount{Percent: 80}, 0, 0},
		{Amount{Percent: 100}, 1<<53 + 1, 1<<53 + 1},
		{Amount{Percent: 100}, math.MaxInt64, math.MaxInt64},
	} {
		if got := test.amount.Of(test.total); got != test.want {
			t.Errorf("%v of %d = %d, want %d", test.amount, test.total, got, test.want)
		}
	}
}

func TestCacheBoundsHaveTheirLimits(t *testing.T) {
	for _, test := range []struct {
		key   string
		valid bool
		value string
	}{
		{"cache.max_size", true, "256MiB"},
		{"cache.max_size", true, "0.1%"},
		{"cache.max_size", true, "100%"},
		{"cache.max_size", false, "256MB"},
		{"cache.max_size", false, "0"},
		{"cache.max_size", false, "0%"},
		{"cache.min_free", true, "0"},
		{"cache.min_free", true, "0%"},
		{"cache.min_free", true, "1B"},
		{"cache.min_free", false, "101%"},
		{"cache.low_water", true, "0.1%"},
		{"cache.low_water", true, "100%"},
		{"cache.low_water", false, "0"},
		{"cache.low_water", false, "0%"},
		{"cache.low_water", false, "100.1%"},
		{"cache.low_water", false, "0.9"},
		{"cache.low_water", false, "40GiB"},
		// So little that a fraction of it would be 0.
		{"cache.low_water", false, "0." + strings.Repeat("0", 322) + "5%"},
	} {
		_, err := Load("", Override{Key: test.key, Value: test.value})
		if valid := err == nil; valid != test.valid {
			t.Errorf("Load with %s of %s: %v, want valid %t", test.key, test.value, err, test.valid)
		}
	}
}
