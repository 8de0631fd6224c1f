package disk_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
)

// check is a check of a disk that finds it healthy.
func check(h *disk.Health) { h.Recovered(h.Failures()) }

func TestRelapsesDoubleTheTimeUntilTheDiskIsHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := disk.NewHealth(discard)
		fails := func(want time.Duration) {
			t.Helper()
			h.Note(unix.EDQUOT)
			if want > 0 {
				<-time.After(want - 1)
				check(h)
				if h.Failure() == nil {
					t.Errorf("the disk is healthy less than %v after a failure", want)
				}
				<-time.After(1)
			}
			check(h)
			if err := h.Failure(); err != nil {
				t.Errorf("the disk is not healthy %v after a failure: %v", want, err)
			}
		}
		for _, minutes := range []int{0, 1, 2, 4, 8, 16, 32, 60, 60} {
			fails(time.Duration(minutes) * time.Minute)
		}
		<-time.After(time.Hour + 1) // the next failure is no relapse
		for _, minutes := range []int{0, 1, 2} {
			fails(time.Duration(minutes) * time.Minute)
		}
	})
}

// A failure that happens during a check must not be taken for one before it.
func TestDiskThatFailsDuringACheckIsNotHealthy(t *testing.T) {
	h := disk.NewHealth(discard)
	h.Note(unix.EIO)
	before := h.Failures()
	h.Note(unix.EIO)
	h.Recovered(before)
	if h.Failure() == nil {
		t.Error("the failure during the check was forgotten")
	}
	before = h.Failures()
	if err := h.Refuses(); err == nil || !h.Note(err) {
		t.Errorf("a failing disk refuses with %v", err)
	}
	h.Recovered(before) // a refused write is not a failure of the disk
	if err := h.Failure(); err != nil {
		t.Errorf("the disk still fails: %v", err)
	}
}
