package name

import "strings"

// Glob reports whether s is the pattern with each star replaced by any text, the
// empty text too. No other character is special.
func Glob(pattern, s string) bool { return glob(pattern, s, 0) }

// glob is [Glob] where each star stands for at least that many bytes. To take the
// first occurrence of the text between two stars is enough: a later one leaves
// less for the rest.
func glob(pattern, s string, least int) bool {
	literal, pattern, star := strings.Cut(pattern, "*")
	s, ok := strings.CutPrefix(s, literal)
	for ok && star {
		if len(s) < least {
			return false
		}
		s = s[least:]
		if literal, pattern, star = strings.Cut(pattern, "*"); !star {
			return strings.HasSuffix(s, literal)
		}
		_, s, ok = strings.Cut(s, literal)
	}
	return ok && s == ""
}
