package bundle

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

// maxOther is the size of the largest file that is skipped because no layout needs it, such
// as Docker's "repositories", in bytes.
const maxOther = 1 << 20

// Reader reads a bundle or an OCI layout. It is for one goroutine.
type Reader struct {
	source      source
	documents   Documents
	description *Description // nil if it is no bundle
	begun       bool         // the documents before the blobs were read
	seen        digests      // the blobs so far
	part        int          // of the bundle; 0 before its first blob

	pending *Blob // the first blob, until Next returns it
	name    string
	left    int64 // bytes of the current blob that were not read
	ended   error // why there is no further blob
}

// digests is a set of digests, in little memory.
type digests map[[16]byte]struct{}

func (s digests) key(d digest.Digest) [16]byte {
	sum := sha256.Sum256([]byte(d))
	return [16]byte(sum[:])
}

func (s digests) add(d digest.Digest) { s[s.key(d)] = struct{}{} }

func (s digests) has(d digest.Digest) bool {
	_, ok := s[s.key(d)]
	return ok
}

// NewReader begins to read a bundle, or an OCI layout as a tar: plain, or compressed with
// gzip or zstd. It reads up to the first blob. If r is an [io.Seeker] and not compressed,
// content that the caller does not read is skipped without being read.
func NewReader(r io.Reader) (*Reader, error) {
	a, err := openArchive(r)
	if err != nil {
		return nil, err
	}
	return newReader(a)
}

// NewFolderReader begins to read an OCI layout or an unpacked bundle from a folder. Give it
// [os.Root.FS], which no link leads out of.
func NewFolderReader(folder fs.FS) (*Reader, error) { return newReader(openFolder(folder)) }

func newReader(s source) (*Reader, error) {
	r := &Reader{source: s, documents: make(Documents), seen: make(digests)}
	b, err := r.Next()
	switch {
	case err == nil:
		r.pending = &b
	case err != io.EOF:
		return nil, errors.Join(err, s.close())
	}
	return r, nil
}

// Close releases what the Reader holds. It does not close the reader that NewReader was given.
func (r *Reader) Close() error { return r.source.close() }

// Description returns the description of a bundle, or nil for another layout.
func (r *Reader) Description() *Description { return r.description }

// Signature returns the signature of the description, or nil.
func (r *Reader) Signature() []byte { return r.documents.Signature() }

// Part returns the number of the part of the bundle that is read, or 0 if it has no blob or
// is no bundle.
func (r *Reader) Part() int { return r.part }

// Documents returns the documents that were read so far: of a bundle all of them, before its
// first blob, and of another layout once Next has returned [io.EOF]. They must not be changed.
func (r *Reader) Documents() Documents { return r.documents }

// Layout returns what the layout says about its images. The documents of some layouts come
// last, so it is an error to call it before Next returned [io.EOF].
func (r *Reader) Layout() (*Layout, error) {
	switch {
	case r.ended == nil:
		return nil, errors.New("the images of a layout were asked for before its end")
	case r.ended != io.EOF:
		return nil, r.ended
	}
	return newLayout(r.documents, r.description, r.seen)
}

// Plan returns the plan of the bundle that is read, so that an interrupted [Part.Write] can
// go on as planned, or nil if it is no bundle.
func (r *Reader) Plan() *Plan {
	if r.description == nil {
		return nil
	}
	return &Plan{r.description, r.documents[layoutFile], r.documents[indexFile], r.documents[dockerFile]}
}

// Next goes to the next blob, whose content Read gives. The error is [io.EOF] after the last
// one. A bundle then had every blob that it promises for this part.
func (r *Reader) Next() (Blob, error) {
	if b := r.pending; b != nil {
		r.pending = nil
		return *b, nil
	}
	if r.ended != nil {
		return Blob{}, r.ended
	}
	b, err := r.advance()
	if err == io.EOF {
		err = r.end()
	}
	r.ended = err
	return b, err
}

// advance goes to the next blob, and reads the documents before it.
func (r *Reader) advance() (Blob, error) {
	for {
		before := r.name
		name, size, err := r.source.next()
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF) && before != "":
			return Blob{}, blame(before, errTruncated)
		case errors.Is(err, tar.ErrHeader) && before != "":
			return Blob{}, blame(before, errors.New("no entry of a tar follows it: the file is damaged"))
		case err != nil:
			return Blob{}, err
		}
		r.name, r.left = name, size
		d, isBlob, err := blobDigest(name)
		_, isDocument := limits[name]
		switch {
		case err != nil:
		case isBlob:
			b := Blob{Digest: d, Size: size}
			if err = r.accept(&b); err == nil {
				return b, nil
			}
		case isDocument:
			err = r.document(name, size)
		case size > maxOther:
			err = fmt.Errorf("it has %d bytes, and an OCI layout has no such file", size)
		}
		if err != nil {
			return Blob{}, blame(name, err)
		}
	}
}

var (
	errTruncated = errors.New("the file ends in the middle of it: it was truncated")
	errTwice     = errors.New("it comes twice")
	errLate      = errors.New("it comes after the blobs, and a bundle begins with it")
)

// document reads a document.
func (r *Reader) document(name string, size int64) error {
	late := r.begun && (r.description != nil || name == DescriptionFile || name == SignatureFile)
	switch limit := limits[name]; {
	case r.documents[name] != nil:
		return errTwice
	case late:
		return errLate
	case size > limit:
		return fmt.Errorf("it has %d bytes, and may have %d", size, limit)
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(r, raw); err != nil {
		return err
	}
	r.documents[name] = raw
	return nil
}

// begin reads the description of a bundle, once the documents are there.
func (r *Reader) begin() error {
	if r.begun {
		return nil
	}
	r.begun = true
	description, err := r.documents.Description()
	r.description = description
	return err
}

// accept checks the entry of a blob.
func (r *Reader) accept(b *Blob) error {
	if err := r.begin(); err != nil {
		return err
	}
	if r.seen.has(b.Digest) {
		return errTwice
	}
	r.seen.add(b.Digest)
	if r.description == nil {
		return nil
	}
	promised, ok := r.description.Blob(b.Digest)
	switch {
	case !ok:
		return fmt.Errorf("%s does not name it", DescriptionFile)
	case promised.Size != b.Size:
		return fmt.Errorf("it has %d bytes, and %d by %s", b.Size, promised.Size, DescriptionFile)
	case r.part != 0 && r.part != promised.Part:
		return fmt.Errorf("it belongs to part %d, and this is part %d", promised.Part, r.part)
	}
	r.part, *b = promised.Part, promised
	return nil
}

// end checks that everything was there, and returns io.EOF if so.
func (r *Reader) end() error {
	if err := r.begin(); err != nil {
		return err
	}
	r.name = ""
	if err := r.documents.complete(); err != nil {
		return err
	}
	if r.description == nil {
		return io.EOF
	}
	for _, b := range r.description.Blobs {
		if part := max(r.part, 1); b.Part == part && !r.seen.has(b.Digest) {
			return blame(blobName(b.Digest), fmt.Errorf("it is missing, and %s names it for part %d: the file was truncated, or altered",
				DescriptionFile, part))
		}
	}
	return io.EOF
}

// Read reads the content of the current blob. It returns exactly as many bytes as the blob
// has, or an error. The content is not hashed: see [Verify].
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.source.Read(p)
	r.left -= int64(n)
	switch {
	case err == nil:
	case err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF):
		return n, blame(r.name, err)
	case r.left > 0:
		return n, blame(r.name, errTruncated)
	}
	return n, nil
}
