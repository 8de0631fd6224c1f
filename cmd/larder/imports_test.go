package main

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/larder-registry/larder/"

// modulePackages loads the packages of this module once, type-checked and without their tests.
var modulePackages = sync.OnceValues(func() ([]*packages.Package, error) {
	return packages.Load(&packages.Config{
		Dir: repository,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedSyntax | packages.NeedTypes |
			packages.NeedTypesInfo,
	}, "./...")
})

// loadPackages returns every package of this module, by its path inside the module.
func loadPackages(t *testing.T) map[string]*packages.Package {
	t.Helper()
	loaded, err := modulePackages()
	if err != nil {
		t.Fatalf("loading the module: %v", err)
	}
	all := make(map[string]*packages.Package)
	for _, p := range loaded {
		for _, err := range p.Errors {
			t.Errorf("loading %s: %v", p.PkgPath, err)
		}
		all[strings.TrimPrefix(p.PkgPath, module)] = p
	}
	if len(all) < 2 {
		t.Fatalf("%d packages were loaded, which is not the module", len(all))
	}
	return all
}

// imports lists the packages of this module that the shipped code of each package below the commands may import: imports
// flow one way, the cache knows no registry, and the upstream no cache.
var imports = map[string][]string{
	"cache": {
		"cache/blobs", "cache/catalog", "cache/counts", "cache/disk", "cache/fill", "cache/manifest", "cache/pins", "cache/recency",
		"cache/records", "cache/tasks",
	},
	"cache/blobs": {
		"cache/counts", "cache/disk", "cache/fill", "cache/manifest", "cache/pins", "cache/recency", "cache/records", "cache/tasks",
	},
	"cache/bundle":   {"cache/disk", "cache/manifest"},
	"cache/catalog":  {"cache/manifest", "cache/recency", "cache/records"},
	"cache/fill":     {"cache/disk", "cache/tasks"},
	"cache/manifest": {"cache/disk", "cache/records"},
	"cache/pins":     {"cache/disk", "cache/manifest", "cache/recency", "cache/records"},
	"cache/records":  {"cache/disk"},

	"upstream": {
		"upstream/auth", "upstream/dial", "upstream/ecr", "upstream/guard", "upstream/link", "upstream/name", "upstream/offline",
		"upstream/pace", "upstream/patience", "upstream/probe", "upstream/redact", "upstream/reply", "upstream/telemetry",
	},
	"upstream/auth": {"upstream/guard", "upstream/name", "upstream/pace", "upstream/redact", "upstream/reply"},
	"upstream/ecr": {
		"upstream/auth", "upstream/dial", "upstream/ecr/denial", "upstream/guard", "upstream/lifecycle", "upstream/name",
		"upstream/offline", "upstream/pace", "upstream/patience", "upstream/probe", "upstream/redact", "upstream/reply", "upstream/telemetry",
	},
	"upstream/dial":      {"upstream/pace"},
	"upstream/guard":     {"upstream/dial"},
	"upstream/lifecycle": {"upstream/name"},
	"upstream/link":      {"upstream/pace"},
	"upstream/pace":      {"upstream/reply"},
	"upstream/patience":  {"upstream/pace", "upstream/reply"},
	"upstream/reply":     {"upstream/ecr/denial", "upstream/redact"},
	"upstream/telemetry": {"upstream/pace", "upstream/reply"},

	"upstream/bucket": {"upstream", "upstream/link", "upstream/pace"},

	"upstream/peer":         {"upstream", "upstream/name", "upstream/peer/members", "upstream/peer/ring", "upstream/peer/tree"},
	"upstream/peer/members": {"upstream/peer/ring"},

	"proxy":              {"cache", "proxy/access", "proxy/audit", "proxy/origin", "proxy/password", "proxy/policy", "upstream/name"},
	"proxy/access":       {"proxy/attempts", "proxy/wholefile"},
	"proxy/password":     {"proxy/attempts", "proxy/livefile", "upstream/name"},
	"proxy/admin":        {"cache", "proxy", "proxy/admin/answer", "proxy/origin", "proxy/policy", "upstream", "upstream/bucket", "upstream/link", "upstream/name"}, // it shows the state of upstreams
	"proxy/admin/answer": {"cache"},
	"config":             {"upstream/lifecycle", "upstream/name"},
	"proxy/policy":       {"proxy/wholefile", "upstream/name"},

	"proxy/policy/findings":         {"proxy/policy"},
	"proxy/policy/signed":           {"proxy/policy", "proxy/policy/signed/awssigner"},
	"proxy/policy/signed/awssigner": {"proxy/policy"},

	"deploy/packages": {"deploy/internal/manuals"},
	"deploy/release":  {"deploy/internal/manuals"},
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
	t.Parallel()
	all := loadPackages(t)
	for from, p := range all {
		for path := range p.Imports {
			if to, ours := strings.CutPrefix(path, module); ours && !mayImport(from, to) {
				t.Errorf("%s must not import %s", from, to)
			}
		}
	}
	for from, allowed := range imports {
		for _, to := range allowed {
			if p := all[from]; p == nil || p.Imports[module+to] == nil {
				t.Errorf("%s does not import %s: remove this from the table", from, to)
			}
		}
	}
}

func TestNoShippedCodeImportsTesting(t *testing.T) {
	t.Parallel()
	for from, p := range loadPackages(t) {
		if isForTests(from) {
			continue
		}
		for path := range p.Imports {
			if path == "testing" || strings.HasPrefix(path, "testing/") {
				t.Errorf("%s imports %s outside of its tests", from, path)
			}
		}
	}
}

// The index is the only user of Badger, and its checker reads the folder as an older or newer binary would.
func TestOnlyTheIndexAndItsCheckerImportBadger(t *testing.T) {
	t.Parallel()
	var importers []string
	for from, p := range loadPackages(t) {
		uses := func(path string) bool { return within(path, "github.com/dgraph-io/badger/v4") }
		if slices.ContainsFunc(slices.Collect(maps.Keys(p.Imports)), uses) {
			importers = append(importers, from)
		}
	}
	slices.Sort(importers)
	if want := []string{"cache/cachetest", "cache/records"}; !slices.Equal(importers, want) {
		t.Errorf("Badger is imported by %q, want %q", importers, want)
	}
}
