package main

import (
	"go/ast"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// maxCircle is the largest number of files of a package that may depend on each other in a circle. Files of a larger
// circle can only be understood together.
const maxCircle = 8

func TestNoPackageHasALargeCircleOfFiles(t *testing.T) {
	t.Parallel()
	for path, p := range loadPackages(t) {
		if circle := largestCircle(dependencies(p)); len(circle) > maxCircle {
			t.Errorf("%s: %d files depend on each other, want at most %d: %s", path, len(circle), maxCircle, strings.Join(circle, " "))
		}
	}
}

// A files maps each file of a package to the other files that it depends on.
type files map[string][]string

// dependencies returns the files of a package, without its tests, and what they depend on: a file depends on another if it
// uses a name that is declared there, methods and fields included.
func dependencies(p *packages.Package) files {
	deps := make(files)
	for _, f := range p.Syntax {
		from := filepath.Base(p.Fset.Position(f.Pos()).Filename)
		deps[from] = nil
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			used := p.TypesInfo.Uses[id]
			if used == nil || used.Pkg() != p.Types {
				return true
			}
			to := filepath.Base(p.Fset.Position(used.Pos()).Filename)
			if to != from && !slices.Contains(deps[from], to) {
				deps[from] = append(deps[from], to)
			}
			return true
		})
	}
	return deps
}

// largestCircle returns the largest set of files that depend on each other, sorted; one file if there is no circle. It is
// the largest strongly connected component (Tarjan, "Depth-first search and linear graph algorithms", 1972).
func largestCircle(deps files) []string {
	var (
		largest, stack []string
		index          = make(map[string]int) // the order of the visits, from 1
		lowest         = make(map[string]int) // the smallest index that is reached from a file
		onStack        = make(map[string]bool)
		visit          func(file string)
	)
	visit = func(file string) {
		index[file] = len(index) + 1
		lowest[file] = index[file]
		stack, onStack[file] = append(stack, file), true
		for _, to := range deps[file] {
			if index[to] == 0 {
				visit(to)
				lowest[file] = min(lowest[file], lowest[to])
			} else if onStack[to] {
				lowest[file] = min(lowest[file], index[to])
			}
		}
		if lowest[file] != index[file] {
			return
		}
		start := slices.Index(stack, file)
		circle := slices.Clone(stack[start:])
		stack = stack[:start]
		for _, member := range circle {
			onStack[member] = false
		}
		if len(circle) > len(largest) {
			largest = circle
		}
	}
	for file := range deps {
		if index[file] == 0 {
			visit(file)
		}
	}
	slices.Sort(largest)
	return largest
}

func TestLargestCircle(t *testing.T) {
	deps := files{
		"a.go": {"b.go"}, "b.go": {"c.go"}, "c.go": {"a.go", "d.go"}, // a circle of three
		"d.go": {"e.go"}, "e.go": {"d.go"}, // a circle of two
		"f.go": {"a.go", "d.go"}, "g.go": nil,
	}
	if got, want := largestCircle(deps), []string{"a.go", "b.go", "c.go"}; !slices.Equal(got, want) {
		t.Errorf("the largest circle is %q, want %q", got, want)
	}
	if got := largestCircle(files{"a.go": {"b.go"}, "b.go": nil}); len(got) != 1 {
		t.Errorf("files without a circle have the circle %q", got)
	}
}
