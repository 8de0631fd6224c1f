package deploytest_test

import (
	"net"
	"sync"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestFreeAddressesDifferUntilTheTestEnds(t *testing.T) {
	const n = 200
	addresses := make([]string, n)
	var callers sync.WaitGroup
	for i := range addresses {
		callers.Go(func() { addresses[i] = deploytest.FreeAddress(t) })
	}
	callers.Wait()
	seen := make(map[string]bool)
	for _, address := range addresses {
		if seen[address] {
			t.Errorf("%s was given twice", address)
		}
		seen[address] = true
	}
}

// A daemon that is started on the address may end, and start again.
func TestFreeAddressCanBeListenedOnAgainAndAgain(t *testing.T) {
	address := deploytest.FreeAddress(t)
	for range 3 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	}
}
