package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The functions in this file make the setters of plain values: each stores what
// it understands and says what it expected of anything else.

// text returns the text of a value. A number or truth value is not text, even
// where it looks alike: a reader must not have to know how YAML takes 1e3 or no.
func text(value *yaml.Node, want string) (string, error) {
	if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" || value.Value == "" {
		return "", mismatch(want, value)
	}
	return value.Value, nil
}

// check returns a setter for text of which valid is true.
func check(to *string, want string, valid func(string) bool) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		s, err := text(value, want)
		if err != nil {
			return err
		}
		if !valid(s) {
			return mismatch(want, value)
		}
		*to = s
		return nil
	}
}

// orNone makes a setter accept the empty text, for none.
func orNone(to *string, set func(*yaml.Node) error) func(*yaml.Node) error {
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

func address(to *string) func(*yaml.Node) error {
	return check(to, "host:port such as 127.0.0.1:5000", func(s string) bool {
		host, port, err := net.SplitHostPort(s)
		if err != nil || port != "0" && !isPort(port) {
			return false
		}
		if strings.Contains(host, ":") {
			_, err := netip.ParseAddr(host) // IPv6, with a zone or without
			return err == nil
		}
		return host == "" || isHost(host)
	})
}

func exactHost(to *string) func(*yaml.Node) error {
	return lower(to, check(to, "a host such as docker.io or registry.example.com:5000", isHost))
}

func hostOrPattern(to *string) func(*yaml.Node) error {
	const want = "a host such as registry.example.com:5000 or a pattern such as *.example.com (no * in the last label)"
	return lower(to, check(to, want, func(s string) bool { return isHost(s) || isHostPattern(s) }))
}

// lower makes a setter store what it accepts in lower case.
func lower(to *string, set func(*yaml.Node) error) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		*to = strings.ToLower(*to)
		return nil
	}
}

// duration accepts what [time.ParseDuration] does, from least on.
func duration(to *time.Duration, least time.Duration) func(*yaml.Node) error {
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

// maxSize is amount from leastMaxSize on. What a percentage comes to is not known here.
func maxSize(to *Amount) func(*yaml.Node) error {
	set := amount(to)
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		if to.Percent == 0 && to.Bytes < leastMaxSize {
			return mismatch(fmt.Sprintf("at least %v, which the index and one layer need", Amount{Bytes: leastMaxSize}), value)
		}
		return nil
	}
}

func amount(to *Amount) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		a, err := parseAmount(value.Value)
		if err != nil {
			return mismatch(err.Error(), value)
		}
		*to = a
		return nil
	}
}

// fraction accepts a percentage and stores 0.9 for 90%.
func fraction(to *float64) func(*yaml.Node) error {
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
func ratio(to *float64) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		n, err := strconv.ParseFloat(value.Value, 64)
		if value.Kind != yaml.ScalarNode || err != nil || !(0 <= n && n <= 1) { // which NaN is not
			return mismatch("a number from 0 to 1", value)
		}
		*to = n
		return nil
	}
}

// filePath accepts any path and makes it absolute, from base on.
func filePath(to *string, base string) func(*yaml.Node) error {
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

// registryURL is httpURL for a registry: /v2 is not part of it.
func registryURL(to *string) func(*yaml.Node) error {
	set := httpURL(to)
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		if strings.HasSuffix(*to, "/v2") {
			return errors.New("expected the URL under which /v2 is, without /v2")
		}
		return nil
	}
}

// httpURL accepts a URL that can be a prefix of others. What it says of a wrong
// one does not repeat it, since it may hold a password.
func httpURL(to *string) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		s, err := text(value, "a URL such as https://registry.example.com")
		if err != nil {
			return err
		}
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https" || !isHost(u.Host):
			return errors.New("expected an http or https URL such as https://registry.example.com")
		case u.User != nil:
			return errors.New("expected a URL without user name and password; they belong in auth")
		case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
			return errors.New("expected a URL without query and fragment")
		}
		u.Host = strings.ToLower(u.Host)
		*to = strings.TrimRight(u.String(), "/")
		return nil
	}
}

func region(to *string) func(*yaml.Node) error {
	return check(to, "a region such as us-east-1", func(s string) bool {
		return isLabel(s, false) && s == strings.ToLower(s)
	})
}

// username accepts what can be a user name in basic authentication, in which a
// colon ends it (RFC 7617, section 2). It does not repeat a wrong one, since
// what follows the colon is likely to be a password.
func username(to *string) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		s, err := text(value, "a user name, in quotes if it is a number")
		if err != nil {
			return err
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }) {
			return errors.New("expected a user name without colons and control characters")
		}
		*to = s
		return nil
	}
}

// repositoryPattern accepts what can match the name of a repository by the OCI
// distribution specification: anything else would never allow anything.
func repositoryPattern(to *string) func(*yaml.Node) error {
	const want = "a repository such as team/app, or a pattern such as team/*, in lower case"
	return check(to, want, isRepositoryPattern)
}

func isRepositoryPattern(s string) bool {
	for element := range strings.SplitSeq(s, "/") {
		if element == "" || strings.Contains(element, "**") || strings.Trim(element, "abcdefghijklmnopqrstuvwxyz0123456789._-*") != "" {
			return false
		}
	}
	return true
}

func level(to *slog.Level) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		const want = "debug, info, warn or error"
		name, err := text(value, want)
		if err != nil {
			return err
		}
		switch name {
		case "debug":
			*to = slog.LevelDebug
		case "info":
			*to = slog.LevelInfo
		case "warn":
			*to = slog.LevelWarn
		case "error":
			*to = slog.LevelError
		default:
			return mismatch(want, value)
		}
		return nil
	}
}

// imagePattern accepts what can match the name of an image with a tag.
func imagePattern(to *string) func(*yaml.Node) error {
	const want = "an image such as docker.io/library/busybox:1.36, or a pattern such as */team/*:v1*"
	return check(to, want, isTaggedImagePattern)
}

// truth accepts true and false. A variable's value is a text.
func truth(to *bool) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		if value.Kind != yaml.ScalarNode || value.Value != "true" && value.Value != "false" {
			return mismatch("true or false", value)
		}
		*to = value.Value == "true"
		return nil
	}
}

func lifecycle(to *string) func(*yaml.Node) error {
	return check(to, "hint, enforce or off", func(s string) bool {
		return s == lifecycleHint || s == lifecycleEnforce || s == lifecycleOff
	})
}

func keepAlive(to *time.Duration) func(*yaml.Node) error {
	return orNever(to, leastKeepAlive, "24h or more, since ECR records no more than one pull a day, or 0 for never")
}

func scrubEvery(to *time.Duration) func(*yaml.Node) error {
	return orNever(to, leastScrubEvery, "1h or more, or 0 for never")
}

// orNever accepts 0, and a duration of least or more.
func orNever(to *time.Duration, least time.Duration, want string) func(*yaml.Node) error {
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

func scrubRate(to *Amount) func(*yaml.Node) error {
	set := amount(to)
	return func(value *yaml.Node) error {
		if set(value) != nil || to.Percent != 0 || to.Bytes < leastScrubRate {
			return mismatch(fmt.Sprintf("a number of bytes per second such as 20MB, %v at least", Amount{Bytes: leastScrubRate}), value)
		}
		return nil
	}
}

func logFormat(to *string) func(*yaml.Node) error {
	return check(to, "text or json", func(s string) bool { return s == "text" || s == "json" })
}
