package ecrtest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Bytes returns a content of these bytes. The caller does not change b afterwards.
func Bytes(b []byte) Content { return bytes.NewReader(b) }

// Random returns size bytes that depend only on seed and on their offset, and that do
// not compress. They are generated while they are read, at several GB/s.
func Random(seed uint64, size int64) Content {
	return random{base: mix(seed), size: size}
}

// random is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
// number generators", 2014) by position: the word at index i is the one that the
// generator returns after i others, in little endian.
type random struct {
	base uint64
	size int64
}

const (
	wordSize    = 8
	goldenGamma = 0x9e3779b97f4a7c15
)

func (c random) Size() int64 { return c.size }

func (c random) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading random content: negative offset %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	state := c.base + uint64(off/wordSize)*goldenGamma
	q := p[:n]
	if skip := off % wordSize; skip != 0 {
		q = q[copyWord(q, state, skip):]
		state += goldenGamma
	}
	for len(q) >= 4*wordSize {
		for i := range 4 {
			binary.LittleEndian.PutUint64(q[i*wordSize:], mix(state))
			state += goldenGamma
		}
		q = q[4*wordSize:]
	}
	for len(q) > 0 {
		q = q[copyWord(q, state, 0):]
		state += goldenGamma
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// copyWord copies one word without its first skip bytes to p, as far as it fits.
func copyWord(p []byte, state uint64, skip int64) int {
	var w [wordSize]byte
	binary.LittleEndian.PutUint64(w[:], mix(state))
	return copy(p, w[skip:])
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// TarLayer returns an uncompressed layer, of media type
// application/vnd.oci.image.layer.v1.tar: a tar with one file of size random bytes. For
// a short name tar adds one block of 512 bytes before the file, the padding, and two
// blocks after it. TarLayer panics if a tar cannot hold a file of that name.
func TarLayer(name string, seed uint64, size int64) Content {
	const block = 512
	var header bytes.Buffer
	w := tar.NewWriter(&header)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		panic(fmt.Sprintf("ecrtest: a tar layer with the file %q: %v", name, err))
	}
	padding := (block - size%block) % block
	return concat{
		Bytes(header.Bytes()),
		Random(seed, size),
		Bytes(make([]byte, padding+2*block)),
	}
}

// concat is the concatenation of its parts.
type concat []Content

func (c concat) Size() int64 {
	var n int64
	for _, part := range c {
		n += part.Size()
	}
	return n
}

func (c concat) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading content: negative offset %d", off)
	}
	var n int
	for _, part := range c {
		if n == len(p) {
			return n, nil
		}
		size := part.Size()
		if off >= size {
			off -= size
			continue
		}
		m, err := part.ReadAt(p[n:n+int(min(int64(len(p)-n), size-off))], off)
		n += m
		if err != nil && err != io.EOF {
			return n, err
		}
		off = 0
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
