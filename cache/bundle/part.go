package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/readahead"
	"github.com/opencontainers/go-digest"
)

// Open opens a blob of the exporter. The content that it gives is verified.
type Open func(context.Context, Blob) (io.ReadCloser, error)

// maxSignature is the size of the largest signature, in bytes. One with a certificate chain
// and the entry of a log has 10 kB.
const maxSignature = 64 << 10

// copySize is how much is copied at once, in bytes: larger pieces are not faster.
const copySize = 256 << 10

// Part is one file of a bundle.
type Part struct {
	entries []entry
	size    int64
}

// Part returns a part, by its number from 1. The signature is one of Description.Raw, as a
// sigstore bundle; nil for none.
func (p *Plan) Part(number int, signature []byte) (*Part, error) {
	if number < 1 || number > p.description.Parts {
		return nil, fmt.Errorf("part %d of a bundle of %d", number, p.description.Parts)
	}
	if len(signature) > maxSignature {
		return nil, fmt.Errorf("the signature has %d bytes, which are more than %d", len(signature), maxSignature)
	}
	part := &Part{entries: p.head(signature), size: endSize}
	for _, b := range p.description.Blobs {
		if b.Part == number {
			part.entries = append(part.entries, blobEntry(b))
		}
	}
	for _, e := range part.entries {
		part.size += sizeOf(e)
	}
	return part, nil
}

// head returns the entries before the blobs.
func (p *Plan) head(signature []byte) []entry {
	head := []entry{documentEntry(layoutFile, p.layout), documentEntry(indexFile, p.index)}
	if p.docker != nil {
		head = append(head, documentEntry(dockerFile, p.docker))
	}
	head = append(head, documentEntry(DescriptionFile, p.description.raw))
	if signature != nil {
		head = append(head, documentEntry(SignatureFile, signature))
	}
	head = append(head, documentEntry("blobs/", nil))
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		if slices.ContainsFunc(p.description.Blobs, func(b Blob) bool { return b.Digest.Algorithm() == a }) {
			head = append(head, documentEntry("blobs/"+string(a)+"/", nil))
		}
	}
	return head
}

// size returns how large a part with these blobs is at most, with any signature.
func (p *Plan) size(blobs []Blob) int64 {
	size := int64(endSize)
	for _, e := range p.head(make([]byte, maxSignature)) {
		size += sizeOf(e)
	}
	for _, b := range blobs {
		size += sizeOf(blobEntry(b))
	}
	return size
}

// Size returns how many bytes the file has.
func (p *Part) Size() int64 { return p.size }

// Write writes the file from an offset on: 0, or what [Part.Kept] returned. It ends with the
// context, and with an error if a blob does not match its digest or its size. What was
// written until then is kept by Kept, up to the entry that failed.
func (p *Part) Write(ctx context.Context, w io.Writer, offset int64, open Open) error {
	var at int64
	buffers := [][]byte{make([]byte, copySize), make([]byte, copySize)}
	for _, e := range p.entries {
		size := sizeOf(e)
		if at += size; at-size < offset {
			if at > offset {
				return fmt.Errorf("a bundle cannot be continued at byte %d, in the middle of %s", offset, e.name)
			}
			continue
		}
		if err := e.write(ctx, w, open, buffers); err != nil {
			return blame(e.name, err)
		}
	}
	if offset == p.size {
		return nil
	}
	_, err := w.Write(make([]byte, endSize))
	return err
}

func (e entry) write(ctx context.Context, w io.Writer, open Open, buffers [][]byte) error {
	if _, err := w.Write(e.header()); err != nil {
		return err
	}
	if e.blob.Digest == "" {
		if _, err := w.Write(e.content); err != nil {
			return err
		}
	} else if err := e.writeBlob(ctx, w, open, buffers); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, e.padding()))
	return err
}

// writeBlob copies a blob. While it writes what one buffer has, the next one is filled and hashed.
func (e entry) writeBlob(ctx context.Context, w io.Writer, open Open, buffers [][]byte) error {
	r, err := open(ctx, e.blob)
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := readahead.NewReaderBuffer(Verify(e.blob, &cancelable{ctx, r}), buffers)
	if err != nil {
		return err
	}
	defer content.Close()                             // nothing reads r after this
	_, err = io.Copy(struct{ io.Writer }{w}, content) // the loop of an os.File would copy in smaller pieces
	return err
}

// Kept reads what an interrupted Write left, and returns how many bytes of it are good: whole
// entries of this part, verified. The error is that of r, other than [io.EOF].
func (p *Part) Kept(r io.Reader) (int64, error) {
	var kept int64
	for _, e := range p.entries {
		switch good, err := e.read(r); {
		case err != nil:
			return kept, err
		case !good:
			return kept, nil
		}
		kept += sizeOf(e)
	}
	end, err := expect(r, make([]byte, endSize))
	if end {
		return p.size, nil
	}
	return kept, err
}

// read reports whether a reader continues with an entry.
func (e entry) read(r io.Reader) (good bool, err error) {
	if good, err := expect(r, e.header()); !good {
		return false, err
	}
	if e.blob.Digest == "" {
		good, err = expect(r, e.content)
	} else {
		_, err = io.Copy(io.Discard, Verify(e.blob, io.LimitReader(r, e.size)))
		var wrong *WrongContentError
		good = err == nil
		if errors.As(err, &wrong) {
			err = nil
		}
	}
	if !good {
		return false, err
	}
	return expect(r, make([]byte, e.padding()))
}

// expect reports whether a reader continues with these bytes.
func expect(r io.Reader, want []byte) (bool, error) {
	got := make([]byte, len(want))
	switch _, err := io.ReadFull(r, got); {
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return len(want) == 0, nil
	case err != nil:
		return false, err
	}
	return bytes.Equal(got, want), nil
}

// cancelable is a reader that ends with a context.
type cancelable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelable) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
