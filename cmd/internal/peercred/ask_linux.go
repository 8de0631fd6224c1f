package peercred

import (
	"os"

	"golang.org/x/sys/unix"
)

// ask asks for SO_PEERCRED: unix(7).
func ask(fd int) (Peer, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return Peer{PID: int(peer.Pid), UID: int(peer.Uid)}, nil
}
