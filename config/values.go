package config

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// setter stores the plain value of a key if it is valid. The error says what was
// expected.
type setter func(value *yaml.Node) error

// text returns the text of a value. A number or a truth value is not text, even if
// it looks the same: a reader need not know how YAML reads 1e3 or no.
func text(value *yaml.Node, want string) (string, error) {
	if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" || value.Value == "" {
		return "", mismatch(want, value)
	}
	return value.Value, nil
}

// parsed returns the setter of a text that parse accepts.
func parsed[T any](to *T, want string, parse func(string) (T, bool)) setter {
	return func(value *yaml.Node) error {
		s, err := text(value, want)
		if err != nil {
			return err
		}
		v, ok := parse(s)
		if !ok {
			return mismatch(want, value)
		}
		*to = v
		return nil
	}
}

// valid returns the setter of a text for which ok returns true.
func valid(to *string, want string, ok func(string) bool) setter {
	return parsed(to, want, func(s string) (string, bool) { return s, ok(s) })
}

// orNone extends a setter to the empty text, which means none.
func orNone(to *string, set setter) setter {
	return func(value *yaml.Node) error {
		if value.Kind == yaml.ScalarNode && value.ShortTag() == "!!str" && value.Value == "" {
			*to = ""
			return nil
		}
		if err := set(value); err != nil {
			return fmt.Errorf("%w (\"\" for none)", err)
		}
		return nil
	}
}

// duration accepts the form of [time.ParseDuration], from least on.
func duration(to *time.Duration, least time.Duration) setter {
	return func(value *yaml.Node) error {
		d, err := time.ParseDuration(value.Value)
		switch {
		case value.Kind != yaml.ScalarNode || err != nil:
			return mismatch("a duration such as 90s or 12h"+inHours(value.Value), value)
		case d < least && least > 0:
			return mismatch("a duration above 0", value)
		case d < least:
			return mismatch("a duration of 0 or more", value)
		}
		*to = d
		return nil
	}
}

// inHours says how a number of days or weeks is written, which have no unit.
func inHours(s string) string {
	for unit, hours := range map[string]int{"d": 24, "w": 7 * 24} {
		number, ok := strings.CutSuffix(s, unit)
		if n, err := strconv.ParseUint(number, 10, 16); ok && err == nil {
			return fmt.Sprintf(" (%s is %dh)", s, int(n)*hours)
		}
	}
	return ""
}

// orNever accepts 0, and durations from least on.
func orNever(to *time.Duration, least time.Duration, want string) setter {
	set := duration(to, 0)
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		if *to != 0 && *to < least {
			return mismatch(want, value)
		}
		return nil
	}
}

func keepAlive(to *time.Duration) setter {
	return orNever(to, minKeepAlive, "24h or more, since ECR records no more than one pull a day, or 0 for never")
}

// keepEvery accepts a minute or more: registries count these questions.
func keepEvery(to *time.Duration) setter {
	set := duration(to, time.Minute)
	return func(value *yaml.Node) error {
		if set(value) != nil {
			return mismatch("a duration such as 6h, 1m at least", value)
		}
		return nil
	}
}

func scrubEvery(to *time.Duration) setter {
	return orNever(to, minScrubEvery, "1h or more, or 0 for never")
}

func amount(to *Amount) setter {
	return func(value *yaml.Node) error {
		a, err := parseAmount(value.Value)
		if err != nil {
			return mismatch(err.Error(), value)
		}
		*to = a
		return nil
	}
}

// maxSize accepts amounts from minMaxSize on. The size of a percentage is not known
// here.
func maxSize(to *Amount) setter {
	set := amount(to)
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		if to.Percent == 0 && to.Bytes < minMaxSize {
			return mismatch(fmt.Sprintf("at least %v, which the index and one layer need", Amount{Bytes: minMaxSize}), value)
		}
		return nil
	}
}

func scrubRate(to *Amount) setter {
	set := amount(to)
	return func(value *yaml.Node) error {
		if set(value) != nil || to.Percent != 0 || to.Bytes < minScrubRate {
			return mismatch(fmt.Sprintf("a number of bytes per second such as 20MB, %v at least", Amount{Bytes: minScrubRate}), value)
		}
		return nil
	}
}

// linkRate accepts 0, and bytes per second from minLinkRate on.
func linkRate(to *int64) setter {
	var a Amount
	set := amount(&a)
	return func(value *yaml.Node) error {
		if set(value) != nil || a.Percent != 0 || a.Bytes != 0 && a.Bytes < minLinkRate {
			return mismatch(fmt.Sprintf("a number of bytes per second such as 2MB, %v at least, or 0 for no bound", Amount{Bytes: minLinkRate}), value)
		}
		*to = a.Bytes
		return nil
	}
}

// hours accepts 22:00-05:00 and the like, and the empty text for the whole day.
func hours(to *Hours) setter {
	set := parsed(to, "hours of the day such as 22:00-05:00", func(s string) (Hours, bool) {
		from, until, _ := strings.Cut(s, "-")
		begin, err1 := time.Parse("15:04", from)
		end, err2 := time.Parse("15:04", until)
		h := Hours{From: begin.Hour()*60 + begin.Minute(), To: end.Hour()*60 + end.Minute()}
		return h, err1 == nil && err2 == nil && h.From != h.To
	})
	return func(value *yaml.Node) error {
		if value.Kind == yaml.ScalarNode && value.ShortTag() == "!!str" && value.Value == "" {
			*to = Hours{}
			return nil
		}
		return set(value)
	}
}

// fraction accepts a percentage and stores 0.9 for 90%.
func fraction(to *float64) setter {
	return func(value *yaml.Node) error {
		a, err := parseAmount(value.Value)
		part := a.Percent / 100
		if err != nil || part <= 0 {
			return mismatch("a percentage such as 90%, above 0% and up to 100%", value)
		}
		*to = part
		return nil
	}
}

// ratio accepts a number from 0 to 1.
func ratio(to *float64) setter {
	return func(value *yaml.Node) error {
		n, err := strconv.ParseFloat(value.Value, 64)
		if value.Kind != yaml.ScalarNode || err != nil || !(0 <= n && n <= 1) { // false for NaN
			return mismatch("a number from 0 to 1", value)
		}
		*to = n
		return nil
	}
}

// truth accepts true and false. The value of a variable is a text.
func truth(to *bool) setter {
	return func(value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || value.Value != "true" && value.Value != "false" {
			return mismatch("true or false", value)
		}
		*to = value.Value == "true"
		return nil
	}
}

// choice accepts one of some words.
func choice(to *string, words ...string) setter {
	return valid(to, oneOf(words), func(s string) bool { return slices.Contains(words, s) })
}

func level(to *slog.Level) setter {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return parsed(to, "debug, info, warn or error", func(s string) (slog.Level, bool) {
		l, ok := levels[s]
		return l, ok
	})
}

// filePath accepts every path and makes it absolute: a relative one starts from
// base.
func filePath(to *string, base string) setter {
	return func(value *yaml.Node) error {
		path, err := text(value, "a path")
		if err != nil {
			return err
		}
		if strings.Contains(path, "\x00") {
			return mismatch("a path", value)
		}
		if path == "~" || strings.HasPrefix(path, "~/") || strings.HasPrefix(path, "$") || strings.Contains(path, "${") {
			return mismatch("a path written out, since neither ~ nor variables are replaced", value)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		if path, err = filepath.Abs(path); err != nil {
			return fmt.Errorf("making the path absolute: %w", err)
		}
		*to = path
		return nil
	}
}

// wantFile is what the keys of auth expect that name a file.
const wantFile = "the path of a file, written out, since neither ~ nor variables are replaced"

// hidden is set with an error that does not show the value: where credentials are configured,
// a wrong value may be a password.
func hidden(set setter, want string) setter {
	return func(value *yaml.Node) error {
		if set(value) != nil {
			return fmt.Errorf("expected %s, got %s", want, kind(value))
		}
		return nil
	}
}

// auditFile accepts the path of a file, and "-".
func auditFile(to *string, base string) setter {
	path := filePath(to, base)
	return func(value *yaml.Node) error {
		if value.Kind == yaml.ScalarNode && value.ShortTag() == "!!str" && value.Value == AuditStdout {
			*to = AuditStdout
			return nil
		}
		return path(value)
	}
}

// pemFile accepts the path of a file with a certificate or a key, and does not show what it
// refuses: that may be the key itself.
func pemFile(to *string, base string) setter {
	path := filePath(to, base)
	return hidden(func(value *yaml.Node) error {
		if strings.ContainsAny(value.Value, "\r\n") || strings.Contains(value.Value, "-----BEGIN") {
			return errNotPath
		}
		return path(value)
	}, wantFile)
}

var errNotPath = errors.New("expected a path")

// schemeKMS begins the name of a key in AWS KMS.
const schemeKMS = "awskms://"

// publicKey is the setter of a key of [Import].
func publicKey(to *string, base string) setter {
	path := filePath(to, base)
	return func(value *yaml.Node) error {
		if strings.HasPrefix(value.Value, schemeKMS) {
			*to = value.Value
			return nil
		}
		return path(value)
	}
}
