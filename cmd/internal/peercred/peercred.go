// Package peercred tells which process is at the other end of a Unix socket. The kernel
// vouches for it: the process cannot say it is another.
package peercred

import (
	"errors"
	"syscall"
)

// Peer is the process at the other end of a Unix socket when it connected or, for one that
// listens, when it began to.
type Peer struct {
	PID int // 0 if the process is in a PID namespace that cannot be seen from here
	UID int // of its effective user
}

// Of returns the peer of a connection, which must be of a Unix socket. It waits for nothing.
func Of(conn syscall.Conn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var peer Peer
	var peerErr error
	err = raw.Control(func(fd uintptr) { peer, peerErr = ask(int(fd)) })
	if err := errors.Join(err, peerErr); err != nil {
		return Peer{}, err
	}
	return peer, nil
}
