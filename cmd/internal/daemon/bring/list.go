package bring

import (
	"bufio"
	"io"
	"strings"
)

// ReadList reads a list with one image a line. A # begins a comment. A byte order mark,
// with which editors of Windows begin a file, is left out.
func ReadList(in io.Reader) ([]string, error) {
	var images []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		text, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "\ufeff"), "#")
		if image := strings.TrimSpace(text); image != "" {
			images = append(images, image)
		}
	}
	return images, lines.Err()
}
