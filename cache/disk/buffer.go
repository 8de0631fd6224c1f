package disk

import "sync"

// ChunkSize is how many bytes move at a time between a socket, a file and a hash: large
// enough that system calls do not count, small enough to stay in the L2 cache.
const ChunkSize = 256 << 10

// buffers holds idle buffers of ChunkSize bytes.
var buffers = sync.Pool{New: func() any {
	buf := make([]byte, ChunkSize)
	return &buf
}}

// Buffer returns a buffer of ChunkSize bytes with any content. The caller gives it back
// with FreeBuffer.
func Buffer() *[]byte { return buffers.Get().(*[]byte) }

// FreeBuffer takes a buffer back.
func FreeBuffer(buf *[]byte) { buffers.Put(buf) }
