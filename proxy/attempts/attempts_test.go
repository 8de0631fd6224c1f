package attempts

// White-box: a test counts the clients that are known.

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

const (
	burst  = 10
	refill = 6 * time.Second
)

var (
	one   = netip.MustParsePrefix("10.0.0.7/32")
	other = netip.MustParsePrefix("10.0.0.8/32")
)

func id(n int) (id ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// try makes one attempt, and reports whether it was possible.
func try(b *Bound, from netip.Prefix, n int, wrong bool) bool {
	end, ok := b.Begin(from, id(n))
	if ok {
		end(wrong)
	}
	return ok
}

func TestWrongCredentialsOfAClientAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(burst, refill)
		tried := 0
		for n := range 200 * 60 {
			if try(b, one, n, true) {
				tried++
			}
			<-time.After(time.Second / 200)
		}
		if most := burst + int(time.Minute/refill); tried < burst || tried > most {
			t.Errorf("%d wrong credentials were tried in a minute, want at most %d", tried, most)
		}
		if !try(b, other, 0, true) {
			t.Error("another client is kept out")
		}
		<-time.After(refill)
		if !try(b, one, 0, false) {
			t.Errorf("the client is kept out for more than %v after it has stopped", refill)
		}
	})
}

func TestRightCredentialsAreNotCounted(t *testing.T) {
	b := New(burst, time.Hour)
	for n := range 10 * burst {
		if !try(b, one, n, false) {
			t.Fatalf("right credential %d is refused", n)
		}
	}
}

func TestCredentialsThatAreBeingTriedCount(t *testing.T) {
	b := New(burst, time.Hour)
	var ends []func(bool)
	for n := range burst {
		end, ok := b.Begin(one, id(n))
		if !ok {
			t.Fatalf("attempt %d of %d is refused", n+1, burst)
		}
		ends = append(ends, end)
	}
	if try(b, one, burst, false) {
		t.Errorf("%d credentials are tried at once, of which %d may be wrong", burst+1, burst)
	}
	for _, end := range ends {
		end(false)
	}
	if !try(b, one, burst, false) {
		t.Error("right credentials count as wrong ones")
	}
}

// A node starts the pods of many repositories with one secret.
func TestCredentialThatIsTriedManyTimesAtOnceCountsOnce(t *testing.T) {
	b := New(burst, time.Hour)
	var ends []func(bool)
	for range 100 {
		end, ok := b.Begin(one, id(1))
		if !ok {
			t.Fatal("a credential that is being tried is refused")
		}
		ends = append(ends, end)
	}
	for i, end := range ends {
		end(i%2 == 0)
	}
	for n := range burst - 1 {
		if !try(b, one, 2+n, true) {
			t.Fatalf("after one wrong credential, number %d is refused", n+2)
		}
	}
	if try(b, one, 1, true) {
		t.Error("a wrong credential that was tried many times at once is not counted")
	}
}

func TestClientsTakeBoundedMemory(t *testing.T) {
	b := New(burst, refill)
	from := func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n / 256), byte(n), 1}), 32)
	}
	end, _ := b.Begin(from(0), id(0))
	for n := range maxClients + 100 {
		if !try(b, from(n+1), n, true) {
			t.Fatalf("%s is refused at once", from(n+1))
		}
	}
	if n := b.clients.Len(); n != maxClients {
		t.Errorf("%d clients are known, want %d", n, maxClients)
	}
	end(true) // of one that was forgotten meanwhile
}
