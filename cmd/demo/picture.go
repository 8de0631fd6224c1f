package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// flows are the bytes that have moved in a roll-out.
type flows struct {
	size  int64 // of the image
	nodes []nodeFlow
}

// nodeFlow is what one node has got.
type nodeFlow struct {
	upstream int64   // from the upstream
	peers    []int64 // from each node, by its number
}

// got is the sum.
func (f nodeFlow) got() (n int64) {
	n = f.upstream
	for _, bytes := range f.peers {
		n += bytes
	}
	return n
}

const (
	labelWidth  = 9  // of the names before the rows of the picture
	columnWidth = 9  // of each node
	minWidth    = 40 // of what is drawn, however narrow the terminal is
)

// picture draws the flows in lines of at most so many characters: as a tree over a table if that fits, and node by node
// otherwise.
func (f flows) picture(width int) []string {
	width = max(width, minWidth)
	if labelWidth+columnWidth*len(f.nodes) <= width {
		return f.tree()
	}
	return f.list(width)
}

// tree has a column for each node: what it got from the upstream above its name, and from the others below.
func (f flows) tree() []string {
	above, names, bars := strings.Repeat(" ", labelWidth), strings.Repeat(" ", labelWidth), strings.Repeat(" ", labelWidth)
	for i, n := range f.nodes {
		above += center(moved(n.upstream))
		names += center(nodeName(i))
		bars += center(f.bar(n, columnWidth-2))
	}
	lines := append(f.branches(), above, names, bars, "")
	for from := range f.nodes {
		line := pad(nodeName(from)+" →", labelWidth)
		for to, n := range f.nodes {
			if to == from {
				line += center("·")
			} else {
				line += center(moved(n.peers[from]))
			}
		}
		lines = append(lines, line)
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// branches connect the upstream with each column.
func (f flows) branches() []string {
	at := func(i int) int { return labelWidth + i*columnWidth + columnWidth/2 }
	last := at(len(f.nodes) - 1)
	line := []rune(strings.Repeat(" ", at(0)) + strings.Repeat("─", last-at(0)+1))
	for i := range f.nodes {
		line[at(i)] = '┬'
	}
	line[at(0)], line[last] = '┌', '┐'
	middle := (at(0) + last) / 2
	line[middle] = map[rune]rune{'─': '┴', '┬': '┼'}[line[middle]]
	const root = "upstream"
	return []string{strings.Repeat(" ", middle-len(root)/2) + root, string(line)}
}

// list has some lines for each node.
func (f flows) list(width int) (lines []string) {
	for i, n := range f.nodes {
		lines = append(lines, pad(nodeName(i), labelWidth)+f.bar(n, width-labelWidth))
		var from []string
		if n.upstream > 0 {
			from = append(from, moved(n.upstream)+" from upstream")
		}
		for j, bytes := range n.peers {
			if bytes > 0 {
				from = append(from, fmt.Sprintf("%s from %s", moved(bytes), nodeName(j)))
			}
		}
		lines = append(lines, wrap(from, width)...)
	}
	return lines
}

// wrap puts texts with commas between them on indented lines.
func wrap(texts []string, width int) (lines []string) {
	const indent = "  "
	for i, text := range texts {
		if i < len(texts)-1 {
			text += ","
		}
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last])+1+utf8.RuneCountInString(text) <= width {
			lines[last] += " " + text
		} else {
			lines = append(lines, indent+text)
		}
	}
	return lines
}

// bar shows how much of the image a node has.
func (f flows) bar(n nodeFlow, width int) string {
	full := 0
	if f.size > 0 {
		full = int(min(n.got(), f.size) * int64(width) / f.size)
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

func nodeName(i int) string { return fmt.Sprintf("node %d", i+1) }

// moved formats bytes in few characters.
func moved(bytes int64) string {
	if bytes == 0 {
		return "–"
	}
	return size(bytes)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}

// center puts a text into the middle of a column.
func center(s string) string {
	spare := max(columnWidth-utf8.RuneCountInString(s), 0)
	return pad(strings.Repeat(" ", spare/2)+s, columnWidth)
}
