package access_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusedCredentialsOfAnIPv6NetworkAreCountedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		tries := 0
		for ; tries < 1000 && g.MayTry(fmt.Sprintf("[2001:db8::%x]:1", tries)); tries++ {
			g.Struck(fmt.Sprintf("[2001:db8::%x]:1", tries))
		}
		if tries < 2 || tries > 50 {
			t.Errorf("one client with many addresses tried %d wrong credentials at once", tries)
		}
		if !g.MayTry("[2001:db8:0:1::1]:1") || !g.MayTry("192.0.2.1:1") {
			t.Error("another network is kept out")
		}
		pass(time.Minute)
		if !g.MayTry("[2001:db8::ffff]:1") {
			t.Error("the client is kept out for a minute")
		}
	})
}
