package fill

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"strconv"
)

// journalStep is how many bytes a connection may write before it notes them in the
// journal, and so the most that a crash costs for each connection. A note is some 30
// bytes; at 1 MiB it is nothing beside the data.
const journalStep = 1 << 20

const journalHeader = "larder-partial 1 %d\n"

// note says that bytes [off,off+n) were written and had this checksum.
type note struct {
	off, n int64
	crc    uint32
}

// text is the line of a note. There is one for every MiB, so it allocates once.
func (n note) text() []byte {
	line := make([]byte, 0, 64)
	line = append(strconv.AppendInt(line, n.off, 10), ' ')
	line = append(strconv.AppendInt(line, n.n, 10), ' ')
	return append(strconv.AppendUint(line, uint64(n.crc), 16), '\n')
}

// readJournal reads notes up to the first line that is not one: a crash may have torn the
// last. The journal is good up to length.
func readJournal(r io.Reader) (size int64, notes []note, length int64, err error) {
	lines := bufio.NewReader(r)
	line, err := lines.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, journalHeader, &size)
	}
	if err != nil || size <= 0 {
		return 0, nil, 0, fmt.Errorf("not a journal: %w", fs.ErrNotExist)
	}
	for {
		length += int64(len(line))
		var n note
		var ok bool
		if n, line, ok = readNote(lines); !ok || n.off < 0 || n.n <= 0 || n.n > size || n.off > size-n.n {
			return size, notes, length, nil
		}
		notes = append(notes, n)
	}
}

func readNote(lines *bufio.Reader) (n note, line string, ok bool) {
	line, err := lines.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "%d %d %x\n", &n.off, &n.n, &n.crc)
	}
	return n, line, err == nil
}
