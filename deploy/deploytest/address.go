package deploytest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// The range of ports for FreeAddress. Below it are ports of well-known services. Where it ends, the kernel begins to choose
// the ports of outgoing connections and of listeners on port 0; 32768 is the default of Linux (ip-sysctl,
// ip_local_port_range), and other systems begin higher.
const (
	firstPort       = 10_000
	firstKernelPort = 32_768
)

// portTries is how many ports FreeAddress tries before it fails the test. Nearly all of some 20,000 are free.
const portTries = 1000

// FreeAddress returns a loopback address on which nobody listens, for a program that the test starts later, or starts
// several times. Until the test ends, no other test gets the address from FreeAddress, in no other process either: the
// test occupies the UDP port of the same number. The kernel does not choose the port for anybody else.
func FreeAddress(t testing.TB) string {
	t.Helper()
	end := kernelPorts()
	for range portTries {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(end-firstPort))
		lock, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", address)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = lock.Close() })
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", address)
		if err != nil {
			continue // the lock stays: nobody else needs to try this port
		}
		_ = l.Close()
		return address
	}
	t.Fatalf("none of %d loopback ports from %d to %d is free", portTries, firstPort, end-1)
	return ""
}

// kernelPorts returns the first port that the kernel chooses by itself. Where it chooses almost all ports, or does not tell,
// that is the default.
func kernelPorts() int {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return firstKernelPort
	}
	var first int
	if _, err := fmt.Sscan(string(raw), &first); err != nil || first < 2*firstPort {
		return firstKernelPort
	}
	return first
}
