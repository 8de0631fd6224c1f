package main

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/larder-registry/larder/cache/bundle"
)

// input is a file to import, or standard input.
type input struct {
	p    *invocation
	path string
	// blobs are those of the file, as far as it was read.
	blobs []bundle.Blob

	// first is the reader that read the beginning. A file or a folder that can be read again
	// was read to its end.
	first *bundle.Reader
	again func() (*bundle.Reader, error) // nil if it cannot be read again
	known bool
	open  []io.Closer
}

// openInput opens a file. It reads one that can be read again to its end, without the content
// of its blobs if it is not compressed. Of others it reads up to the first blob.
func openInput(p *invocation, path string) (*input, error) {
	in := &input{p: p, path: path}
	if err := in.begin(); err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

func (in *input) begin() (err error) {
	if in.path == standardStream {
		in.first, err = bundle.NewReader(in.p.stdin)
		in.known = err == nil && in.first.Description() != nil
		return err
	}
	info, err := os.Stat(in.path)
	if err != nil {
		return err
	}
	in.again = in.openFile
	switch {
	case info.IsDir():
		in.again = in.openFolder
	case !info.Mode().IsRegular(): // a pipe, or a tape
		in.first, err = in.openFile()
		in.again = nil
		in.known = err == nil && in.first.Description() != nil
		return err
	}
	if in.first, err = in.again(); err != nil {
		return err
	}
	for {
		b, err := in.first.Next()
		if err == io.EOF {
			in.known = true
			return nil
		}
		if err != nil {
			return err
		}
		in.note(b)
	}
}

func (in *input) openFile() (*bundle.Reader, error) {
	file, err := os.Open(in.path)
	if err != nil {
		return nil, err
	}
	in.open = append(in.open, file)
	return in.keep(bundle.NewReader(file))
}

func (in *input) openFolder() (*bundle.Reader, error) {
	root, err := os.OpenRoot(in.path)
	if err != nil {
		return nil, err
	}
	in.open = append(in.open, root)
	return in.keep(bundle.NewFolderReader(root.FS()))
}

func (in *input) keep(r *bundle.Reader, err error) (*bundle.Reader, error) {
	if err == nil {
		in.open = append(in.open, r)
	}
	return r, err
}

// note remembers a blob that was read, of an input that is read once.
func (in *input) note(b bundle.Blob) {
	if !in.known && in.first.Description() == nil {
		in.blobs = append(in.blobs, b)
	}
}

// isKnown reports whether the documents, and the blobs of a layout of another tool, are known.
func (in *input) isKnown() bool { return in.known }

// description returns that of a bundle, or nil.
func (in *input) description() *bundle.Description { return in.first.Description() }

func (in *input) documents() bundle.Documents { return in.first.Documents() }

// reader returns a reader of the file's blobs, from the first one.
func (in *input) reader() (*bundle.Reader, error) {
	if in.again == nil {
		return in.first, nil
	}
	return in.again()
}

// close closes what was opened.
func (in *input) close() error {
	var errs []error
	for i := len(in.open) - 1; i >= 0; i-- {
		errs = append(errs, in.open[i].Close())
	}
	in.open = nil
	return errors.Join(errs...)
}

// upload is the body of a request.
type upload struct {
	r      io.Reader
	read   func(n int)
	err    error         // of r; may be read once closed
	closed chan struct{} // when the transport reads no more
	once   sync.Once
}

func newUpload(r io.Reader, read func(n int)) *upload {
	return &upload{r: r, read: read, closed: make(chan struct{})}
}

// Read is for [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.read(n)
	if err != nil {
		u.err = err
	}
	return n, err
}

// Close is for [io.Closer].
func (u *upload) Close() error { //nolint:unparam // it is an io.Closer
	u.once.Do(func() { close(u.closed) })
	return nil
}
