package bucket

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatWasPutIsForgottenAfterATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory[string, int](2)
		m.add("a", 1, putFor)
		<-time.After(putFor - 1)
		if v, ok := m.get("a"); !ok || v != 1 {
			t.Errorf("got %d, %t", v, ok)
		}
		<-time.After(1)
		if m.has("a") {
			t.Error("it is remembered for too long")
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory[int, int](2)
	for i := range 3 {
		m.add(i, i, time.Hour)
	}
	if m.has(0) || !m.has(1) || !m.has(2) {
		t.Error("not the oldest is forgotten")
	}
}
