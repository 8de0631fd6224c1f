// Package report is what a run of the bench found: samples of metrics by case and server, their medians in a table, and
// verdicts on the targets that the project has set itself. Write prints it as text, Markdown or JSON.
package report
