// Package process runs the servers of the bench as processes, and asks the operating system what each costs: CPU time,
// memory and system calls.
package process
