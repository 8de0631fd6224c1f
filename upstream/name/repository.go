package name

import "strings"

// MaxRepository is the length of the longest repository name, in bytes. Clients
// limit the name together with its host to the same length (distribution-spec
// 1.1, "Pulling manifests").
const MaxRepository = 255

// IsRepository reports whether s is the name of a repository (distribution-spec
// 1.1, "Pulling manifests"):
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func IsRepository(s string) bool {
	if len(s) > MaxRepository {
		return false
	}
	for element := range strings.SplitSeq(s, "/") {
		if !isElement(element) {
			return false
		}
	}
	return true
}

// isElement reports whether s is an element of a repository's name: letters and
// digits with separators between them.
func isElement(s string) bool {
	if s == "" || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isAlphanumeric(s[i]) {
			i++
			continue
		}
		end := i
		for !isAlphanumeric(s[end]) { // the last byte is alphanumeric
			end++
		}
		switch separator := s[i:end]; {
		case separator == ".", separator == "_", separator == "__", strings.Trim(separator, "-") == "":
		default:
			return false
		}
		i = end
	}
	return true
}

// IsTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
// (distribution-spec 1.1, "Pulling manifests").
func IsTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
