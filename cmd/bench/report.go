package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is what a run found.
type report struct {
	machine machine
	command string
	servers []string          // in the order of the table's columns
	missing map[string]string // of peers and tools, and why
	cases   []*caseReport
}

type caseReport struct {
	*scenario
	results map[string]map[metric]samples // by server
}

// add takes in what a turn measured.
func (r *report) add(sc *scenario, server string, m measures) {
	found := r.find(sc.name)
	if found == nil {
		found = &caseReport{scenario: sc, results: make(map[string]map[metric]samples)}
		r.cases = append(r.cases, found)
	}
	if found.results[server] == nil {
		found.results[server] = make(map[metric]samples)
	}
	for metric, value := range m {
		found.results[server][metric] = append(found.results[server][metric], value)
	}
}

func (r *report) find(name string) *caseReport {
	i := slices.IndexFunc(r.cases, func(c *caseReport) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return r.cases[i]
}

// rows returns the table's lines of a case: a metric that anybody has, and what each server has of it.
func (r *report) rows(c *caseReport, among []metric) [][]string {
	var rows [][]string
	for _, m := range among {
		row, found := []string{m.String()}, false
		for _, server := range r.servers {
			cell := ""
			if got := c.results[server][m]; len(got) > 0 {
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

func (r *report) verdicts() []verdict {
	var all []verdict
	for _, t := range targets() {
		if v, ok := t.judge(r); ok {
			all = append(all, v)
		}
	}
	return all
}

// notes says on what machine it was, how, and who was missing.
func (r *report) notes() []string {
	notes := []string{
		r.machine.String(),
		r.command,
		"Medians of the rounds ± half the distance of the extremes.",
	}
	for _, name := range sortedKeys(r.missing) {
		notes = append(notes, fmt.Sprintf("Missing: %s (%s)", name, r.missing[name]))
	}
	for _, c := range r.cases {
		for _, server := range sortedKeys(c.skip) {
			notes = append(notes, fmt.Sprintf("%s: without %s: %s.", c.name, server, c.skip[server]))
		}
	}
	return notes
}

// write prints the report in one of the formats text, markdown and json.
func (r *report) write(w io.Writer, format string) error {
	switch format {
	case "json":
		return r.writeJSON(w)
	case "markdown":
		return r.writeMarkdown(w)
	}
	return r.writeText(w)
}

func (r *report) writeText(w io.Writer) error {
	for _, note := range r.notes() {
		fmt.Fprintln(w, note)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "\n\t%s\n", strings.Join(r.servers, "\t"))
	for _, c := range r.cases {
		fmt.Fprintf(table, "\n%s: %s\n", c.name, c.about)
		for _, row := range r.rows(c, everyMetric()) {
			fmt.Fprintf(table, "  %s\n", strings.Join(row, "\t"))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, v := range r.verdicts() {
		fmt.Fprintf(w, "%-6s  %s\n", v.word(), v.Text)
	}
	return nil
}

func (v verdict) word() string {
	if v.Met {
		return "met"
	}
	return "MISSED"
}

// writeMarkdown has the headlines of each case alone, as a page has little room.
func (r *report) writeMarkdown(w io.Writer) error {
	lines := [][]string{append([]string{"case", "measure"}, r.servers...), nil}
	for range lines[0] {
		lines[1] = append(lines[1], "---")
	}
	for _, c := range r.cases {
		for i, row := range r.rows(c, c.headline) {
			about := ""
			if i == 0 {
				about = "**" + c.name + "**: " + c.about
			}
			lines = append(lines, append([]string{about}, row...))
		}
	}
	for _, line := range lines {
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
	}
	fmt.Fprint(w, "\n| verdict | |\n| --- | --- |\n")
	for _, v := range r.verdicts() {
		fmt.Fprintf(w, "| %s | %s |\n", v.word(), v.Text)
	}
	fmt.Fprintln(w)
	for _, note := range r.notes() {
		fmt.Fprintf(w, "- %s\n", note)
	}
	return nil
}

// writeJSON has every sample.
func (r *report) writeJSON(w io.Writer) error {
	type result struct {
		Case    string    `json:"case"`
		Server  string    `json:"server"`
		Metric  string    `json:"metric"`
		Median  float64   `json:"median"`
		Samples []float64 `json:"samples"`
	}
	out := struct {
		Machine  machine           `json:"machine"`
		Command  string            `json:"command"`
		Missing  map[string]string `json:"missing"`
		Results  []result          `json:"results"`
		Verdicts []verdict         `json:"verdicts"`
	}{r.machine, r.command, r.missing, nil, r.verdicts()}
	for _, c := range r.cases {
		for _, server := range r.servers {
			for _, m := range everyMetric() {
				if got := c.results[server][m]; len(got) > 0 {
					out.Results = append(out.Results, result{c.name, server, m.String(), got.median(), got})
				}
			}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
