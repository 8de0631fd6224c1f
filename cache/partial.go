package cache

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/larder-registry/larder/cache/disk"
)

// journalStep is how many bytes a connection may write before they are noted
// in the journal, and so the most that a crash costs per connection. A note is
// some 30 bytes; at 1 MiB it is nothing beside the data.
const journalStep = 1 << 20

// castagnoli has hardware support on amd64 and arm64: about 10 GB/s.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// partial is a blob on its way: a data file of the final size, and a journal
// of what has been written to it.
//
// The journal is trusted for nothing but where to look: a note carries the
// CRC-32C of its bytes, so a data file that lost writes in a power cut loses
// just those notes, and the digest over the whole decides in the end. Neither
// file is synced before the blob is complete. FORMAT.md has the syntax.
//
// Methods may be called from several goroutines at once.
type partial struct {
	steps   disk.Steps
	data    *os.File
	journal *os.File
	size    int64

	// Held during a write of data. The kernel lets one at a time write to a file, and
	// has the others spin: that was a tenth of a fast fill's CPU.
	writing sync.Mutex
}

func (p *partial) write(b []byte, off int64) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.steps.WriteAt(p.data, b, off)
}

// note says that bytes [off,off+n) were written and had this checksum.
type note struct {
	off, n int64
	crc    uint32
}

const journalHeader = "larder-partial 1 %d\n"

// createPartial makes the two files, with all of the space for the data taken
// at once, so that a disk that is too full says so before a byte is fetched.
func createPartial(steps disk.Steps, dataPath, journalPath string, size int64) (*partial, error) {
	data, err := steps.Create(dataPath, os.O_RDWR|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	p := &partial{steps: steps, data: data, size: size}
	if err := steps.Preallocate(data, size); err != nil {
		return nil, errors.Join(err, p.close(), steps.Remove(dataPath))
	}
	p.journal, err = steps.Create(journalPath, os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o640)
	if err == nil {
		err = steps.Write(p.journal, fmt.Appendf(nil, journalHeader, size))
	}
	if err != nil {
		return nil, errors.Join(err, p.close(), steps.RemoveIfExists(journalPath), steps.Remove(dataPath))
	}
	return p, nil
}

// resumePartial opens what an earlier process left and returns its notes,
// unchecked. Anything that does not look like a partial is fs.ErrNotExist.
func resumePartial(steps disk.Steps, dataPath, journalPath string) (*partial, []note, error) {
	journal, err := os.OpenFile(journalPath, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, err
	}
	size, notes, length, err := readJournal(journal)
	if err == nil {
		err = steps.Truncate(journal, length) // of a torn end, behind which new notes would be lost
	}
	if err != nil {
		return nil, nil, errors.Join(err, journal.Close())
	}
	data, err := os.OpenFile(dataPath, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, errors.Join(err, journal.Close())
	}
	p := &partial{steps: steps, data: data, journal: journal, size: size}
	if info, err := data.Stat(); err != nil || info.Size() != size {
		return nil, nil, errors.Join(fmt.Errorf("%s is not %d bytes long: %w", dataPath, size, fs.ErrNotExist), p.close())
	}
	return p, notes, nil
}

// readJournal reads notes up to the first line that is not one: a crash may
// have torn the last. The journal is good up to length.
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

// note appends to the journal. One write, so that notes of several
// connections do not mix.
func (p *partial) note(n note) error {
	return p.steps.Write(p.journal, fmt.Appendf(nil, "%d %d %x\n", n.off, n.n, n.crc))
}

func (p *partial) close() error {
	err := p.data.Close()
	if p.journal != nil {
		err = errors.Join(err, p.journal.Close())
	}
	return err
}

// checksum reads [from,to) back, by way of buf.
func (p *partial) checksum(from, to int64, buf []byte) (uint32, error) {
	var crc uint32
	for from < to {
		chunk := buf[:min(to-from, int64(len(buf)))]
		if _, err := p.data.ReadAt(chunk, from); err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, castagnoli, chunk)
		from += int64(len(chunk))
	}
	return crc, nil
}
