package report

import "golang.org/x/sys/unix"

const system = "Darwin"

// memory is the machine's, in bytes, or 0 if it is not known.
func memory() uint64 {
	n, _ := unix.SysctlUint64("hw.memsize")
	return n
}
