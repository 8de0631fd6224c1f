package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// source gives the files of a layout one after the other. next returns [io.EOF] after the
// last one. The source reads the file that next returned.
type source interface {
	io.Reader
	next() (name string, size int64, err error)
	close() error
}

const (
	maxEntries = 100_000 // of an archive or a folder
	maxWindow  = 8 << 20 // bytes; what zstd needs up to level 19
)

// errTooMany refuses more entries than any bundle has.
var errTooMany = fmt.Errorf("there are more than %d entries", maxEntries)

// archive is a tar.
type archive struct {
	tar     *tar.Reader
	in      *untilEnd // what tar reads
	file    io.Seeker // the tar, if it is a file and not compressed, or nil
	size    int64     // of file, in bytes
	entries int
	release func()
}

// openArchive recognises a tar, compressed or not, by its content.
func openArchive(r io.Reader) (*archive, error) {
	a := &archive{release: func() {}}
	start, r, err := a.peek(r)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		in, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r, a.file = in, nil
	case isZstd(start):
		in, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		r, a.file, a.release = zstdReader{in}, nil, in.Close
	case bytes.HasPrefix(start, []byte("BZh")), bytes.HasPrefix(start, []byte("\xfd7zXZ\x00")):
		return nil, errors.New("it is compressed with bzip2 or xz, which are not supported: decompress it first")
	case len(start) < blockSize:
		return nil, fmt.Errorf("it has only %d bytes, and is no bundle or OCI layout", len(start))
	case !bytes.Equal(start[257:262], []byte("ustar")):
		return nil, errors.New("it is no tar, and so no bundle or OCI layout")
	}
	a.in = &untilEnd{Reader: r}
	if a.file == nil {
		a.tar = tar.NewReader(a.in)
	} else {
		a.tar = tar.NewReader(struct { // which skips by seeking
			io.Reader
			io.Seeker
		}{a.in, a.file})
	}
	return a, nil
}

// untilEnd notes whether something was read behind the end of a reader.
type untilEnd struct {
	io.Reader
	ended bool
}

func (u *untilEnd) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	u.ended = u.ended || n == 0 && err == io.EOF
	return n, err
}

// peek returns the first bytes of a reader, and a reader that begins with them. It sets file
// if the reader is one.
func (a *archive) peek(r io.Reader) ([]byte, io.Reader, error) {
	if file, ok := r.(io.ReadSeeker); ok {
		if here, err := file.Seek(0, io.SeekCurrent); err == nil { // a pipe cannot
			start, err := a.peekFile(file, here)
			return start, file, err
		}
	}
	in := bufio.NewReaderSize(r, 64<<10)
	start, err := in.Peek(blockSize)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return start, in, err
}

// peekFile is peek for a file, which stays where it is.
func (a *archive) peekFile(file io.ReadSeeker, here int64) (start []byte, err error) {
	if a.size, err = file.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	if _, err := file.Seek(here, io.SeekStart); err != nil {
		return nil, err
	}
	start = make([]byte, blockSize)
	n, err := io.ReadFull(file, start)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	a.file = file
	_, err = file.Seek(here, io.SeekStart)
	return start[:n], err
}

// isZstd recognises a frame, or a skippable one, which pzstd begins with.
func isZstd(start []byte) bool {
	return bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(start) >= 4 && start[0]&0xf0 == 0x50 && bytes.Equal(start[1:4], []byte{0x2a, 0x4d, 0x18})
}

// zstdReader explains the one limit that users meet.
type zstdReader struct{ *zstd.Decoder }

func (z zstdReader) Read(p []byte) (int, error) {
	n, err := z.Decoder.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = fmt.Errorf("%w: %d MiB are supported; compress it again without --long or --ultra", err, maxWindow>>20)
	}
	return n, err
}

// Read reads the file that next went to.
func (a *archive) Read(p []byte) (int, error) { return a.tar.Read(p) }

func (a *archive) close() error {
	a.release()
	return nil
}

// next goes to the next file. It refuses everything that is neither a file nor a folder.
func (a *archive) next() (string, int64, error) {
	for {
		h, err := a.tar.Next()
		if err == io.EOF && a.in.ended { // a tar ends in two empty blocks, and nobody looks behind them
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", 0, err
		}
		if a.entries++; a.entries > maxEntries {
			return "", 0, blame(h.Name, errTooMany)
		}
		name, err := cleanName(h.Name)
		if err != nil {
			return "", 0, blame(h.Name, err)
		}
		if isDocker(name) {
			return "", 0, errDocker
		}
		if err := a.check(h); err != nil {
			return "", 0, blame(h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			return name, h.Size, nil
		}
	}
}

// check refuses entries that a layout does not have.
func (a *archive) check(h *tar.Header) error {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errors.New("it is a sparse file")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		return nil
	case tar.TypeSymlink, tar.TypeLink:
		return fmt.Errorf("it is a link, to %.100q", h.Linkname)
	case tar.TypeGNUSparse:
		return errors.New("it is a sparse file")
	default:
		return fmt.Errorf("it is neither a file nor a folder, but of type %q", h.Typeflag)
	}
	if a.file == nil {
		return nil
	}
	here, err := a.file.Seek(0, io.SeekCurrent)
	if err == nil && h.Size > a.size-here {
		return fmt.Errorf("it has %d bytes by its header, and the file ends %d bytes after that: the file was truncated", h.Size, a.size-here)
	}
	return err
}
