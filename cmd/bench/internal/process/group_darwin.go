package process

import "syscall"

// ownGroup gives a process a group of its own. macOS cannot end it with the bench.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
