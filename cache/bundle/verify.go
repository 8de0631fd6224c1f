package bundle

import (
	"fmt"
	"hash"
	"io"
)

// WrongContentError says that content does not match the digest or the size of a blob.
type WrongContentError struct {
	Blob Blob
	// Size is how many bytes came. More than Blob.Size means that at least one more came.
	Size int64
}

func (e *WrongContentError) Error() string {
	switch {
	case e.Size < e.Blob.Size:
		return fmt.Sprintf("blob %s ended after %d of %d bytes", e.Blob.Digest, e.Size, e.Blob.Size)
	case e.Size > e.Blob.Size:
		return fmt.Sprintf("blob %s has more than %d bytes", e.Blob.Digest, e.Blob.Size)
	}
	return fmt.Sprintf("the content of blob %s does not match its digest", e.Blob.Digest)
}

// Verify returns a reader of the content of a blob, which ends in a [WrongContentError]
// rather than in [io.EOF] if the content is not the blob's. It never returns more bytes than
// the blob has.
func Verify(b Blob, r io.Reader) io.Reader {
	return &verifier{blob: b, r: r, hash: b.Digest.Algorithm().Hash()}
}

type verifier struct {
	blob Blob
	r    io.Reader
	hash hash.Hash
	read int64
}

func (v *verifier) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	left := v.blob.Size - v.read
	if left == 0 {
		return 0, v.end()
	}
	n, err := v.r.Read(p[:min(int64(len(p)), left)])
	v.hash.Write(p[:n])
	v.read += int64(n)
	if err == io.EOF {
		if err = nil; v.read < v.blob.Size {
			err = &WrongContentError{v.blob, v.read}
		}
	}
	return n, err
}

// end returns io.EOF if the reader ends here and the content is right.
func (v *verifier) end() error {
	var more [1]byte
	switch _, err := io.ReadFull(v.r, more[:]); {
	case err == nil:
		return &WrongContentError{v.blob, v.read + 1}
	case err != io.EOF:
		return err
	case fmt.Sprintf("%x", v.hash.Sum(nil)) != v.blob.Digest.Encoded():
		return &WrongContentError{v.blob, v.read}
	}
	return io.EOF
}
