package envfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilesAreReadAsSystemdReadsThem(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"nothing":             {"", nil},
		"plain":               {"A=1\nB=two words\n", []string{"A=1", "B=two words"}},
		"no end of line":      {"A=1", []string{"A=1"}},
		"comments":            {"# A=1\n; B=2\n  # C=3\nD=4 # five\n", []string{"D=4 # five"}},
		"long comment":        {"# A=1\\\nB=2\nC=3", []string{"C=3"}},
		"space":               {"  A = 1  \n\tB=\t2\t\n", []string{"A=1", "B=2"}},
		"empty":               {"A=\nB=''\nC=\"\"", []string{"A=", "B=", "C="}},
		"quotes":              {`A="a b"  ` + "\nB='c \"d\" e'\nC=a'b c'd", []string{"A=a b", `B=c "d" e`, "C=ab cd"}},
		"space in quotes":     {`A=" a "`, []string{"A= a "}},
		"lines in quotes":     {"A='one\ntwo'\nB=3", []string{"A=one\ntwo", "B=3"}},
		"escapes":             {`A=a\ b\\c\"d` + "\n" + `B="\$x \n \" \\"` + "\n" + `C='\n'`, []string{`A=a b\c"d`, `B=$x \n " \`, `C=\n`}},
		"next line":           {"A=one \\\ntwo\nB=3", []string{"A=one two", "B=3"}},
		"Windows":             {"A=1\r\nB=2\r\n", []string{"A=1", "B=2"}},
		"not expanded":        {"A=$HOME/${X}", []string{"A=$HOME/${X}"}},
		"equals in the value": {"A=b=c", []string{"A=b=c"}},
		"twice":               {"A=1\nA=2", []string{"A=1", "A=2"}},
		"no variables":        {"export A=1\nB\n1C=2\nD-E=3\n=4\nF=5", []string{"F=5"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(test.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenQuoteIsAnErrorWithItsLine(t *testing.T) {
	_, err := Parse("A=1\n\nB='two\n\n")
	if err == nil || !strings.HasPrefix(err.Error(), "line 3: the quote ' is not closed") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("A=\"b\\\n'c'\" # d\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Parse(text)
		for _, entry := range all {
			if name, _, ok := strings.Cut(entry, "="); !ok || !variable.MatchString(name) {
				t.Errorf("%q is not a variable", entry)
			}
		}
		if err != nil && all != nil {
			t.Errorf("%q with the error %v", all, err)
		}
	})
}
