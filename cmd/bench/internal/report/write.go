package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Write prints a report to w. The format is text, markdown or json.
func Write(w io.Writer, r *Report, format string) error {
	switch format {
	case "json":
		return writeJSON(w, r)
	case "markdown":
		return writeMarkdown(w, r)
	}
	return writeText(w, r)
}

func writeText(w io.Writer, r *Report) error {
	for _, note := range r.notes() {
		fmt.Fprintln(w, note)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "\n\t%s\n", strings.Join(r.Servers, "\t"))
	for _, c := range r.cases {
		fmt.Fprintf(table, "\n%s: %s\n", c.Name, c.About)
		for _, row := range r.rows(c, allMetrics()) {
			fmt.Fprintf(table, "  %s\n", strings.Join(row, "\t"))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, v := range verdicts(r) {
		fmt.Fprintf(w, "%-6s  %s\n", v.word(), v.Text)
	}
	return nil
}

// writeMarkdown prints the headline metrics of each case, since a page has little space.
func writeMarkdown(w io.Writer, r *Report) error {
	lines := [][]string{append([]string{"case", "measure"}, r.Servers...), nil}
	for range lines[0] {
		lines[1] = append(lines[1], "---")
	}
	for _, c := range r.cases {
		for i, row := range r.rows(c, c.Headline) {
			about := ""
			if i == 0 {
				about = "**" + c.Name + "**: " + c.About
			}
			lines = append(lines, append([]string{about}, row...))
		}
	}
	for _, line := range lines {
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
	}
	fmt.Fprint(w, "\n| verdict | |\n| --- | --- |\n")
	for _, v := range verdicts(r) {
		fmt.Fprintf(w, "| %s | %s |\n", v.word(), v.Text)
	}
	fmt.Fprintln(w)
	for _, note := range r.notes() {
		fmt.Fprintf(w, "- %s\n", note)
	}
	return nil
}

// writeJSON prints every sample.
func writeJSON(w io.Writer, r *Report) error {
	type result struct {
		Case    string    `json:"case"`
		Server  string    `json:"server"`
		Metric  string    `json:"metric"`
		Median  float64   `json:"median"`
		Samples []float64 `json:"samples"`
	}
	out := struct {
		Machine  Machine           `json:"machine"`
		Command  string            `json:"command"`
		Missing  map[string]string `json:"missing"`
		Results  []result          `json:"results"`
		Verdicts []verdict         `json:"verdicts"`
	}{r.Machine, r.Command, r.Missing, nil, verdicts(r)}
	for _, c := range r.cases {
		for _, server := range r.Servers {
			for _, m := range allMetrics() {
				if got := c.samples[server][m]; len(got) > 0 {
					out.Results = append(out.Results, result{c.Name, server, m.String(), got.median(), got})
				}
			}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
