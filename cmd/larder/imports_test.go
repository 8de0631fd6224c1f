package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/larder-registry/larder/"

// A listedPackage is what go list says of a package of this module.
type listedPackage struct {
	ImportPath string
	Imports    []string // of the code that is shipped, not of its tests
}

// path returns the package's path inside the module.
func (p listedPackage) path() string { return strings.TrimPrefix(p.ImportPath, module) }

// mayImport tells whether the shipped code of one package of this module may import another: imports flow one way,
// from the commands down, and the packages below do not know of each other.
func mayImport(from, to string) bool {
	switch {
	case to == "upstream/ecrtest": // not in the binary that is shipped
		return from == "cmd/demo" || from == "cmd/fakeecr" || from == "cmd/bench/internal/upstream"
	case strings.HasPrefix(to, "upstream/ecrtest/internal/"):
		return strings.HasPrefix(from, "upstream/ecrtest")
	case to == "cache/cachetest": // for tests only
		return false
	case strings.HasPrefix(from, "cmd/"):
		return true
	case to == "upstream/name": // a leaf
		return from != "cache" && from != "upstream/ecrtest"
	case to == "upstream/lifecycle":
		return from == "upstream" || from == "config"
	case strings.HasPrefix(to, "upstream/"):
		return from == "upstream" || slices.Contains(besideUpstream[from], to)
	default:
		return from == "proxy" && to == "cache" || from == "proxy/admin" && slices.Contains([]string{"proxy", "cache", "upstream"}, to)
	}
}

// besideUpstream has the packages below upstream that another of them may import.
var besideUpstream = map[string][]string{
	"upstream/reply": {"upstream/ecr/denial"},
	"upstream/pace":  {"upstream/reply"},
	"upstream/guard": {"upstream/pace"},
	"upstream/auth":  {"upstream/reply", "upstream/guard", "upstream/pace"},
}

func TestImportsFlowOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if ours && !mayImport(p.path(), to) {
				t.Errorf("%s must not import %s", p.path(), to)
			}
		}
	}
}

func TestNoShippedCodeImportsTesting(t *testing.T) {
	for _, p := range listPackages(t) {
		i := slices.IndexFunc(p.Imports, func(path string) bool {
			return path == "testing" || strings.HasPrefix(path, "testing/")
		})
		if i >= 0 {
			t.Errorf("%s imports %s outside of its tests", p.path(), p.Imports[i])
		}
	}
}

// listPackages returns every package of this module.
func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = repository
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []listedPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("reading what go list says: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 2 {
		t.Fatalf("go list names %d packages: it did not list the module", len(packages))
	}
	return packages
}
