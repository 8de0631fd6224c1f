package config

import (
	"path"
	"strings"
)

// MatchImage reports whether a pattern matches the whole name of an image,
// <host>/<repository>:<tag>, or @<digest>. "*" stands for any text, slashes too,
// "?" for one character, and [a-z] for one of these. The error is
// [path.ErrBadPattern].
func MatchImage(pattern, name string) (bool, error) {
	const plain = "\x00" // in no name; to path.Match a slash is something special
	return path.Match(strings.ReplaceAll(pattern, "/", plain), strings.ReplaceAll(name, "/", plain))
}

// IsImagePattern reports whether an image's name is a pattern for several.
func IsImagePattern(name string) bool {
	return strings.ContainsAny(name, `*?\`) || strings.LastIndexByte(name, '[') > 0 // in front it is an IPv6 host
}

// Pins reports whether the image of this name, <host>/<repository>:<tag>, is
// pinned by Pin.
func (c *Cache) Pins(image string) bool {
	for _, pattern := range c.Pin {
		if ok, _ := MatchImage(pattern, image); ok { // its syntax is right by now
			return true
		}
	}
	return false
}

// isTaggedImagePattern reports whether a pattern can match an image's name. What
// has no star names one image, and must do so in full.
func isTaggedImagePattern(s string) bool {
	if _, err := MatchImage(s, ""); err != nil || strings.ContainsAny(s, "@ \t\n") {
		return false
	}
	if strings.Contains(s, "*") {
		return true
	}
	host, rest, _ := strings.Cut(s, "/")
	repository, tag, ok := strings.Cut(rest, ":")
	return ok && host != "" && repository != "" && tag != ""
}
