package blobs

import (
	"context"
	"testing"
)

func TestNoUpstreamTakesAllSlots(t *testing.T) {
	s := newSlots(8)
	var slow []*ticket
	for range 10 {
		slow = append(slow, s.enqueue("slow"))
	}
	other := s.enqueue("other")
	granted := 0
	for _, ticket := range slow {
		if ticket.isGranted() {
			granted++
		}
	}
	if granted != 2 || !other.isGranted() {
		t.Errorf("one upstream has %d of 8 slots, and another's fill has one: %t", granted, other.isGranted())
	}
	s.release(slow[0])
	if !slow[2].isGranted() || slow[3].isGranted() {
		t.Error("a slot did not go to the fill that waited longest, and to it alone")
	}
}

func TestFillThatWaitsUsesASlotOfAnyOfItsUpstreams(t *testing.T) {
	s := newSlots(4)
	running, waiting := s.enqueue("slow"), s.enqueue("slow")
	if waiting.isGranted() {
		t.Fatal("an upstream has two of four slots")
	}
	s.share(waiting, "other")
	if !waiting.isGranted() {
		t.Error("the slot of the other upstream is not used")
	}
	s.release(running)
	s.release(waiting)
	if s.total != 0 || len(s.used) != 0 {
		t.Errorf("%d slots are taken: %v", s.total, s.used)
	}
}

func TestFillThatLeavesTheQueueTakesNoSlot(t *testing.T) {
	s := newSlots(4)
	running, waiting := s.enqueue("slow"), s.enqueue("slow")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.wait(ctx, waiting); err == nil {
		t.Error("it waited without an error")
	}
	s.release(waiting)
	s.release(running)
	if s.total != 0 || len(s.waiting) != 0 {
		t.Errorf("%d slots are taken, %d fills wait", s.total, len(s.waiting))
	}
}
