package config

import (
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
			return mismatch("a duration such as 90s or 12h", value)
		case d < least && least > 0:
			return mismatch("a duration above 0", value)
		case d < least:
			return mismatch("a duration of 0 or more", value)
		}
		*to = d
		return nil
	}
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
