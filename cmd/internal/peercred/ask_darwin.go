package peercred

import (
	"os"

	"golang.org/x/sys/unix"
)

// ask asks for LOCAL_PEERCRED and LOCAL_PEERPID: unix(4).
func ask(fd int) (Peer, error) {
	peer, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt LOCAL_PEERCRED", err)
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt LOCAL_PEERPID", err)
	}
	return Peer{PID: pid, UID: int(peer.Uid)}, nil
}
