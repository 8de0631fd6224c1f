package report

import (
	"fmt"
	"maps"
	"slices"
)

// A Report is what a run found. It is not safe for concurrent use.
type Report struct {
	Machine Machine
	Command string            // that repeats the run
	Servers []string          // in the order of the table's columns
	Missing map[string]string // servers and tools that are not installed, and why or what follows

	cases []*result // in the order in which they were first added
}

// A Case is what the report says of a case beside its samples.
type Case struct {
	Name     string // as in --cases
	About    string // what is measured, in a line
	Headline []Metric
	Skip     map[string]string // servers that do not take part, and why
}

// Measures are the values of one turn of one server.
type Measures map[Metric]float64

// result is what the rounds of a case gave.
type result struct {
	Case
	samples map[string]map[Metric]samples // by server
}

// Add adds what one turn of a server measured.
func (r *Report) Add(c Case, server string, m Measures) {
	found := r.find(c.Name)
	if found == nil {
		found = &result{c, make(map[string]map[Metric]samples)}
		r.cases = append(r.cases, found)
	}
	if found.samples[server] == nil {
		found.samples[server] = make(map[Metric]samples)
	}
	for metric, value := range m {
		found.samples[server][metric] = append(found.samples[server][metric], value)
	}
}

func (r *Report) find(name string) *result {
	i := slices.IndexFunc(r.cases, func(c *result) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return r.cases[i]
}

// of returns the samples that a server has of a metric in a case; none if it was not measured.
func (r *Report) of(name, server string, m Metric) samples {
	found := r.find(name)
	if found == nil {
		return nil
	}
	return found.samples[server][m]
}

// rows returns the table's lines of a case: each metric that a server has samples of, with a cell for each server.
func (r *Report) rows(c *result, among []Metric) [][]string {
	var rows [][]string
	for _, m := range among {
		row, found := []string{m.String()}, false
		for _, server := range r.Servers {
			cell := ""
			if got := c.samples[server][m]; len(got) > 0 {
				cell, found = got.text(m), true
			}
			row = append(row, cell)
		}
		if found {
			rows = append(rows, row)
		}
	}
	return rows
}

// notes are the machine, the command, and the servers that did not take part.
func (r *Report) notes() []string {
	notes := []string{
		r.Machine.String(),
		r.Command,
		"Medians of the rounds ± half the distance between the extremes.",
	}
	for _, name := range sortedKeys(r.Missing) {
		notes = append(notes, fmt.Sprintf("Missing: %s (%s)", name, r.Missing[name]))
	}
	for _, c := range r.cases {
		for _, server := range sortedKeys(c.Skip) {
			notes = append(notes, fmt.Sprintf("%s: without %s: %s.", c.Name, server, c.Skip[server]))
		}
	}
	return notes
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
