package fill

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// Partial is a blob that is not complete yet: a data file of the final size, and a journal
// of what has been written to it.
//
// The journal only says where to look: a note carries the CRC-32C of its bytes, so a data
// file that lost writes in a power cut loses just those notes, and the digest over the
// whole decides in the end. Neither file is synced before the blob is complete. FORMAT.md
// has the syntax.
//
// Its methods may be called from several goroutines at once.
type Partial struct {
	folder  *disk.Folder
	digest  digest.Digest
	size    int64
	data    *os.File
	journal *os.File
	notes   []note // that an earlier process left, not checked yet

	// Closed is called when the fill that uses the partial, and all of its readers, have closed
	// the data file. Nil means not at all. It is set before the fill has the partial.
	Closed func()

	// Held during a write of data. The kernel lets one thread at a time write to a file,
	// and the others spin: that was a tenth of the CPU of a fast fill.
	writing sync.Mutex
}

// castagnoli has hardware support on amd64 and arm64: about 10 GB/s.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CreatePartial makes the two files of a blob of size bytes. It takes all of the disk space
// for the data at once, so that a disk that is too full says so before a byte is fetched.
func CreatePartial(folder *disk.Folder, d digest.Digest, size int64) (*Partial, error) {
	paths := folder.Partial(d)
	data, err := folder.Create(paths.Data, os.O_RDWR|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	p := &Partial{folder: folder, digest: d, size: size, data: data}
	if err := folder.Preallocate(data, size); err != nil {
		return nil, errors.Join(err, data.Close(), folder.Remove(paths.Data))
	}
	p.journal, err = folder.Create(paths.Journal, os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		return nil, errors.Join(err, data.Close(), folder.RemoveIfExists(paths.Journal), folder.Remove(paths.Data))
	}
	if err := folder.Write(p.journal, fmt.Appendf(nil, journalHeader, size)); err != nil {
		return nil, errors.Join(err, data.Close(), p.journal.Close(), folder.RemoveIfExists(paths.Journal), folder.Remove(paths.Data))
	}
	return p, nil
}

// ResumePartial opens what an earlier process left of a blob. The error is fs.ErrNotExist
// for anything that does not look like a partial.
func ResumePartial(folder *disk.Folder, d digest.Digest) (*Partial, error) {
	paths := folder.Partial(d)
	journal, _, err := disk.OpenRegular(paths.Journal, os.O_RDWR|os.O_APPEND)
	if err != nil {
		return nil, err
	}
	size, notes, length, err := readJournal(journal)
	if err == nil {
		err = folder.Truncate(journal, length) // a torn end, behind which new notes would be lost
	}
	if err != nil {
		return nil, errors.Join(err, journal.Close())
	}
	data, info, err := disk.OpenRegular(paths.Data, os.O_RDWR)
	if err != nil {
		return nil, errors.Join(err, journal.Close())
	}
	if info.Size() != size {
		return nil, errors.Join(fmt.Errorf("%s is not %d bytes long: %w", paths.Data, size, fs.ErrNotExist), data.Close(), journal.Close())
	}
	return &Partial{folder: folder, digest: d, size: size, data: data, journal: journal, notes: notes}, nil
}

// Size is the size of the whole blob, in bytes.
func (p *Partial) Size() int64 { return p.size }

// Publish makes the partial the blob, durably. The data file stays open for its readers.
func (p *Partial) Publish() error {
	if err := p.folder.Sync(p.data); err != nil {
		return err
	}
	path := p.folder.Partial(p.digest).Data
	if err := p.isStill(path); err != nil {
		return err
	}
	return p.folder.Publish(path, p.digest)
}

// isStill returns an error unless the path leads to the data file: only what was written to
// that file is verified.
func (p *Partial) isStill(path string) error {
	named, err := os.Lstat(path)
	if err != nil {
		return err
	}
	written, err := p.data.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(named, written) {
		return fmt.Errorf("%s was replaced by another file while it was written: %w", path, fs.ErrNotExist)
	}
	return nil
}

// RemoveJournal removes the journal of a blob that was published.
func (p *Partial) RemoveJournal() error {
	return errors.Join(p.journal.Close(), p.folder.Remove(p.folder.Partial(p.digest).Journal))
}

// Close closes the files of a partial that no fill uses.
func (p *Partial) Close() error { return errors.Join(p.journal.Close(), p.data.Close()) }

// Keep leaves the partial to be resumed.
func (p *Partial) Keep() error { return p.journal.Close() }

// Discard removes the partial. Readers keep the open file.
func (p *Partial) Discard() error {
	paths := p.folder.Partial(p.digest)
	return errors.Join(p.journal.Close(), p.folder.RemoveIfExists(paths.Journal), p.folder.RemoveIfExists(paths.Data))
}

// closeData closes the data file for its last user.
func (p *Partial) closeData() {
	_ = p.data.Close() // nothing was left to write
	if p.Closed != nil {
		p.Closed()
	}
}

func (p *Partial) write(b []byte, off int64) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.folder.WriteAt(p.data, b, off)
}

// note appends to the journal, in one write, so that notes of several connections do not
// mix.
func (p *Partial) note(n note) error {
	return p.folder.Write(p.journal, n.text())
}

// checksum reads [from,to) back and returns its CRC-32C.
func (p *Partial) checksum(from, to int64) (uint32, error) {
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	var crc uint32
	for from < to {
		chunk := (*buf)[:min(to-from, int64(len(*buf)))]
		if _, err := p.data.ReadAt(chunk, from); err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, castagnoli, chunk)
		from += int64(len(chunk))
	}
	return crc, nil
}
