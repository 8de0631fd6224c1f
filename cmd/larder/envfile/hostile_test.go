package envfile

import (
	"strings"
	"testing"
)

// A value with a zero byte cannot be in an environment, and one that is set fails the program
// that is started with it.
func TestStrangeFilesSetNoStrangeVariables(t *testing.T) {
	for name, text := range map[string]string{
		"a zero byte in a value":     "A=1\x002",
		"a zero byte in quotes":      "A='1\x002'",
		"an escaped zero byte":       "A=1\\\x00",
		"a zero byte in a name":      "A\x00B=1",
		"a binary":                   "\x7fELF\x02\x01\x01\x00=\x00\x00\n",
		"a mark of its encoding":     "\xef\xbb\xbfA=1",
		"UTF-16":                     "A\x00=\x001\x00\n\x00",
		"a name with a backslash":    "A\\=1",
		"a name of letters":          "Ä=1",
		"a name in quotes":           "'A'=1",
		"a lone backslash":           "\\",
		"a name without a value":     "A",
		"an equals sign alone":       "=",
		"a name that is a command":   "$(id)=1",
		"a name with a space inside": "A B=1",
		"many equals signs":          strings.Repeat("=", 1<<20),
	} {
		all, err := Parse(text)
		if err == nil && len(all) > 0 {
			t.Errorf("%s: %.100q", name, all)
		}
	}
	for name, text := range map[string]string{
		"a quote that is open for megabytes": "A='" + strings.Repeat("x\n", 1<<20),
		"a quote behind the last backslash":  `A="\"`,
	} {
		if _, err := Parse(text); err == nil || len(err.Error()) > 200 || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	for name, text := range map[string]string{
		"megabytes of backslashes": "A=" + strings.Repeat(`\`, 4<<20),
		"megabytes of lines":       strings.Repeat("A\n", 2<<20),
		"megabytes of spaces":      "A=1" + strings.Repeat(" ", 4<<20),
	} {
		if _, err := Parse(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
