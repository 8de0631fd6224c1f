package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// A command of larder in a document: in a block of code, maybe behind kubectl exec, or in a sentence.
var (
	commandLine   = regexp.MustCompile(`^    (?:.* -- /)?larder ([a-z].*)$`)
	commandInText = regexp.MustCompile("`larder ([a-z][^`]*)`")
	afterCommand  = regexp.MustCompile(`\s+[|>#&;].*$`)
)

// TestDocumentedCommandsExist parses what the documents tell people to type.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"README.md", "deploy/docs/commands.md", "deploy/docs/configuration.md", "deploy/docs/ecr.md", "deploy/docs/lifecycle.md", "deploy/OPERATIONS.md", "deploy/iam/README.md", "deploy/helm/larder/templates/NOTES.txt"} {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			if m := commandLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				found++
				if err := parses(afterCommand.ReplaceAllString(m[1], "")); err != nil {
					t.Errorf("%s: larder %s: %v", name, m[1], err)
				}
			}
		}
		for _, m := range commandInText.FindAllStringSubmatch(string(text), -1) {
			found++
			if err := parses(m[1]); err != nil && !strings.HasPrefix(err.Error(), "expected ") { // what a sentence leaves out
				t.Errorf("%s: `larder %s`: %v", name, m[1], err)
			}
		}
		if found == 0 {
			t.Errorf("%s: no command was found", name)
		}
	}
}

func parses(args string) error {
	parser, err := kong.New(new(commands), kong.Vars{"runtimes": "", "shells": "bash", "systemConfig": ""}, kong.Writers(io.Discard, io.Discard))
	if err != nil {
		return err
	}
	_, err = parser.Parse(strings.Fields(strings.ReplaceAll(args, "'", "")))
	return err
}
