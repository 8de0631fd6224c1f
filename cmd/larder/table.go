package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// table is rows of text in columns. The first row is the header.
type table struct {
	rows  [][]string
	spare string // header of the column that is left out first when the table is too wide
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// gap is between two columns.
const gap = "  "

// minName is the smallest width of the first column: an image's tag, and some of its
// repository.
const minName = 32

// write prints the table on w. If it is wider than width, and width is not 0, it
// leaves out empty columns, then the spare one, then cuts the first column at its
// front, since names differ at their end, and then lines at their end.
func (t *table) write(w io.Writer, width int) error {
	widths := t.widths()
	if width > 0 {
		for over(widths, width) > max(widths[0]-minName, 0) && t.omit() {
			widths = t.widths()
		}
		widths[0] = max(widths[0]-max(over(widths, width), 0), min(widths[0], minName))
	}
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			if i == 0 {
				cell = cutFront(cell, widths[0])
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)) + gap)
			}
		}
		text := strings.TrimRight(line.String(), " ")
		if width > 0 {
			text = cutBack(text, width)
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

// writeTables prints tables with an empty line between them.
func writeTables(w io.Writer, tables []*table) error {
	for i, t := range tables {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := t.write(w, 0); err != nil {
			return err
		}
	}
	return nil
}

// over returns by how much columns of these widths exceed width.
func over(widths []int, width int) int {
	total := len(gap) * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	return total - width
}

// omit removes the least useful column, and reports whether there was one.
func (t *table) omit() bool {
	header, rows := t.rows[0], t.rows[1:]
	i := len(header) - 1
	for i > 0 && slices.ContainsFunc(rows, func(row []string) bool { return row[i] != nothing }) {
		i--
	}
	if i == 0 {
		i = slices.Index(header, t.spare)
	}
	if i <= 0 {
		return false
	}
	for n, row := range t.rows {
		t.rows[n] = slices.Delete(row, i, i+1)
	}
	return true
}

func (t *table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// cutFront shortens s to its last n characters, with an ellipsis at the cut.
func cutFront(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return "…" + string(runes[len(runes)-n+1:])
}

// terminalSize returns the size of the terminal in characters and lines. Both are 0
// if w is not a terminal.
func terminalSize(w io.Writer) (width, height int) {
	file, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return cmp.Or(int(size.Col), 80), cmp.Or(int(size.Row), 24) // for a terminal that does not tell its size
}

func terminalWidth(w io.Writer) int {
	width, _ := terminalSize(w)
	return width
}

func isTerminal(w io.Writer) bool { return terminalWidth(w) > 0 }

// cutBack shortens s to its first n characters, with an ellipsis at the cut.
func cutBack(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:max(n-1, 0)]) + "…"
}
