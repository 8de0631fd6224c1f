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

// imports lists the packages of this module that the shipped code of each package below the commands may import: imports
// flow one way, the cache knows no registry, and the upstream no cache.
var imports = map[string][]string{
	"cache":         {"cache/disk", "cache/fill", "cache/recency", "cache/records"},
	"cache/fill":    {"cache/disk"},
	"cache/records": {"cache/disk"},

	"upstream": {
		"upstream/auth", "upstream/ecr", "upstream/ecr/denial", "upstream/guard", "upstream/lifecycle", "upstream/name", "upstream/pace",
		"upstream/reply",
	},
	"upstream/auth":      {"upstream/guard", "upstream/pace", "upstream/reply"},
	"upstream/guard":     {"upstream/pace"},
	"upstream/lifecycle": {"upstream/name"},
	"upstream/pace":      {"upstream/reply"},
	"upstream/reply":     {"upstream/ecr/denial"},

	"proxy":       {"cache", "upstream/name"},
	"proxy/admin": {"cache", "proxy", "upstream", "upstream/name"}, // it shows the state of upstreams
	"config":      {"upstream/lifecycle", "upstream/name"},
}

// mayImport reports whether the shipped code of one package may import another. Commands may import everything except
// what is for tests.
func mayImport(from, to string) bool {
	switch {
	case within(from, "upstream/ecrtest"): // the fake is not made of what it tests
		return within(to, "upstream/ecrtest")
	case within(to, "upstream/ecrtest"): // not in the binary that is shipped
		return slices.Contains([]string{"cmd/demo", "cmd/fakeecr", "cmd/bench/internal/upstream"}, from)
	case isForTests(to):
		return isForTests(from)
	}
	return within(from, "cmd") || isForTests(from) || slices.Contains(imports[from], to)
}

// isForTests reports whether a package is one that tests import, by its name: cachetest.
func isForTests(path string) bool { return strings.HasSuffix(path, "test") }

// within reports whether a package is that of a folder or below it.
func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

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
		if isForTests(p.path()) {
			continue
		}
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
