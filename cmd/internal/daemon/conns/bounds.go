package conns

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds are the limits of a [Listener].
type Bounds struct {
	// All is the largest number of open connections, and PerClient that of one client.
	// Clients on this machine share one address and so cannot be told apart: only All
	// bounds them.
	All, PerClient int
	// Stall is how long a client may take nothing of what is sent to it.
	Stall time.Duration
}

// stall is long enough for a client whose disk or link is stuck for a while. A runtime
// resumes a layer that was cut.
const stall = 3 * time.Minute

// Descriptors are shared out so that each connection may have two more beside its own: the
// file that it is sent, and a connection to an upstream or the file of a fill. The rest is
// for the index, logs, listeners and fills without clients.
const (
	reserved      = 96
	perConnection = 4
	// mostClients bounds memory too: a connection takes some 30 KiB.
	mostClients = 4096
	// mostAdmin is far more than Prometheus, probes and the streams of the status page need.
	mostAdmin = 128
)

// ForClients returns the bounds of the clients' listener in a process that may open a
// number of descriptors. If it serves other nodes, too, these share the descriptors with
// the clients, and the bounds are those of either listener.
func ForClients(descriptors uint64, servesNodes bool) Bounds {
	var free uint64
	if descriptors > reserved {
		free = descriptors - reserved
	}
	if servesNodes {
		free /= 2
	}
	return boundsOf(min(free/perConnection, mostClients))
}

// ForAdmin is ForClients for the admin listener.
func ForAdmin(descriptors uint64) Bounds { return boundsOf(min(descriptors/16, mostAdmin)) }

// boundsOf leaves half of the connections to other clients, and at least two connections.
func boundsOf(all uint64) Bounds {
	n := max(int(all), 2)
	return Bounds{All: n, PerClient: (n + 1) / 2, Stall: stall}
}

// Descriptors returns how many file descriptors this process may open (RLIMIT_NOFILE). Go
// has raised its limit to the hard one.
func Descriptors() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return limit.Cur, nil
}
