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
	for _, name := range []string{"README.md", "deploy/docs/commands.md", "deploy/docs/configuration.md", "deploy/docs/ecr.md", "deploy/docs/lifecycle.md", "deploy/docs/platforms.md", "deploy/docs/proxies.md", "deploy/OPERATIONS.md", "deploy/iam/README.md", "deploy/helm/larder/templates/NOTES.txt"} {
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

var (
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	linkTo   = regexp.MustCompile(`\]\(([^)\s]*)\)`)
	notOfURL = regexp.MustCompile("[^a-z0-9 _-]")
)

// anchors returns the anchors of a document's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all[strings.ReplaceAll(notOfURL.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}

// TestLinksOfTheDocumentsLeadSomewhere follows the links to files of this repository, and to their headings.
func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	documents := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/OPERATIONS.md", "deploy/METRICS.md", "deploy/helm/larder/README.md", "proxy/PROTOCOL.md", "proxy/SECURITY.md", "cache/FORMAT.md"}
	inDocs, err := filepath.Glob(filepath.Join(repository, "deploy/docs/*.md"))
	if err != nil || len(inDocs) < 6 {
		t.Fatalf("%v, %v", inDocs, err)
	}
	for _, path := range inDocs {
		documents = append(documents, "deploy/docs/"+filepath.Base(path))
	}
	for _, name := range documents {
		text := read(name)
		if strings.HasPrefix(name, "deploy/docs/") && strings.Count(text, "\n## ") > 2 && !strings.Contains(text, "\n- [") {
			t.Errorf("%s has no table of contents", name)
		}
		for _, m := range linkTo.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(repository, target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
				continue
			}
			if anchor != "" && !anchors(read(target))[anchor] {
				t.Errorf("%s links to %s, which has no such heading", name, m[1])
			}
		}
	}
}
