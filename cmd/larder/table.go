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
	spare string // the column that is left out first where there is not room for all, by its header
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// gap is between two columns.
const gap = "  "

// nothing is in a cell that has nothing to tell.
const nothing = "-"

// leastName is how much of the first column stands at least: an image's tag, and
// some of its repository.
const leastName = 32

// write prints the table on w. Where that would be wider than width, and width is
// not 0, columns that tell nothing are left out, then the spare one; the first is
// cut at its beginning, since names differ at their end, and then lines are at
// theirs.
func (t *table) write(w io.Writer, width int) error {
	widths := t.widths()
	if width > 0 {
		for over(widths, width) > max(widths[0]-leastName, 0) && t.omit() {
			widths = t.widths()
		}
		widths[0] = max(widths[0]-max(over(widths, width), 0), min(widths[0], leastName))
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

// writeTables prints tables with an empty line between two.
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

// over is by how much columns of these widths are wider than width.
func over(widths []int, width int) int {
	total := len(gap) * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	return total - width
}

// omit takes the column away that is missed least, and reports whether there is
// one.
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

// cutFront leaves the last n characters of s, and says so.
func cutFront(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return "…" + string(runes[len(runes)-n+1:])
}

// terminalSize is how many characters fit in a line of the terminal that w is, and
// how many lines. Both are 0 where w is none.
func terminalSize(w io.Writer) (width, height int) {
	file, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return cmp.Or(int(size.Col), 80), cmp.Or(int(size.Row), 24) // for a terminal that does not say
}

func terminalWidth(w io.Writer) int {
	width, _ := terminalSize(w)
	return width
}

func isTerminal(w io.Writer) bool { return terminalWidth(w) > 0 }

// cutBack leaves the first n characters of s, and says so.
func cutBack(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:max(n-1, 0)]) + "…"
}
