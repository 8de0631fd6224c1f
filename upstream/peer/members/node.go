package members

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	// MaxZone is the length of the longest zone, in bytes.
	MaxZone = 64
	// maxVersion is how much of a version is told, in bytes.
	maxVersion = 64
	// metaFormat is the first byte of a node's metadata. Later formats begin as this one does, and add
	// to its end.
	metaFormat = 1

	flagDraining = 1 << 0
)

// Node is a member of the cluster.
type Node struct {
	// Name is random, and another one each time a process starts.
	Name string
	// Content is where the node serves content to others. It stays the same when the node starts again.
	Content netip.AddrPort
	// Gossip is where it takes part in gossip.
	Gossip netip.AddrPort
	// Zone may be empty.
	Zone string
	// Version is that of the program.
	Version string
	// Rights is a hash of what the node may read: nodes with different rights should not share.
	Rights uint64
	// Draining says that the node is about to stop.
	Draining bool
	// Self says that it is this process.
	Self bool
}

// encode returns a node as others learn of it, in at most 16+3*(1+64) bytes.
func (n Node) encode() []byte {
	var flags byte
	if n.Draining {
		flags |= flagDraining
	}
	meta := []byte{metaFormat, flags}
	meta = binary.BigEndian.AppendUint64(meta, n.Rights)
	content, _ := n.Content.MarshalBinary() // never fails
	for _, field := range [][]byte{content, []byte(n.Zone)[:min(len(n.Zone), MaxZone)], []byte(n.Version)[:min(len(n.Version), maxVersion)]} {
		meta = append(meta, byte(len(field)))
		meta = append(meta, field...)
	}
	return meta
}

var errMeta = errors.New("the node's metadata cannot be read")

// decode reads what encode has written, by this release or a later one.
func decode(meta []byte) (Node, error) {
	if len(meta) < 10 || meta[0] < metaFormat {
		return Node{}, errMeta
	}
	n := Node{Draining: meta[1]&flagDraining != 0, Rights: binary.BigEndian.Uint64(meta[2:10])}
	rest := meta[10:]
	var fields [3][]byte
	for i := range fields {
		if len(rest) == 0 {
			return Node{}, errMeta
		}
		end := 1 + int(rest[0]) // a byte would overflow
		if len(rest) < end {
			return Node{}, errMeta
		}
		fields[i], rest = rest[1:end], rest[end:]
	}
	if err := n.Content.UnmarshalBinary(fields[0]); err != nil || !n.Content.IsValid() || n.Content.Port() == 0 {
		return Node{}, errMeta
	}
	n.Content = netip.AddrPortFrom(n.Content.Addr().Unmap(), n.Content.Port())
	n.Zone, n.Version = string(fields[1]), string(fields[2])
	if len(n.Zone) > MaxZone || len(n.Version) > maxVersion {
		return Node{}, errMeta
	}
	return n, nil
}
