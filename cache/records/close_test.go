package records_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/records"
)

// The folder of the index disappears, so that Badger cannot write its table and tries again
// every second.
func TestCloseReturnsOnAFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		s.closed = true // by this test
		fill(t, s.Index)
		s.health.Note(unix.EIO)
		elsewhere := s.folder.Index() + ".elsewhere"
		must(t, os.Rename(s.folder.Index(), elsewhere))
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			if !errors.Is(err, unix.EIO) {
				t.Errorf("closed: %v", err)
			}
		case <-time.After(6 * time.Second):
			t.Error("the index is not closed after six seconds")
		}
		must(t, os.Rename(elsewhere, s.folder.Index()), s.folder.Close())
		<-time.After(time.Minute) // so that Badger can end
	})
}

func TestCloseEndsWhenTheIndexWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		s.closed = true // by this test
		fill(t, s.Index)
		elsewhere := s.folder.Index() + ".elsewhere"
		must(t, os.Rename(s.folder.Index(), elsewhere))
		begin := time.Now()
		if err := s.Close(); !errors.Is(err, records.ErrDamaged) {
			t.Errorf("closed: %v", err)
		}
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		must(t, os.Rename(elsewhere, s.folder.Index()), s.folder.Close())
		<-time.After(time.Minute) // so that Badger can end
	})
}
