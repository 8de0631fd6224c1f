package cache

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Opening a terminal whose other side has not unlocked it fails with EIO.
func TestBlobThatCannotBeOpenedIsFetchedAgain(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := stock(t, s, 1, 100_000)[0]
	terminals, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this system has no terminals: %v", err)
	}
	defer terminals.Close()
	n, err := unix.IoctlGetInt(int(terminals.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	locked := fmt.Sprintf("/dev/pts/%d", n)
	if _, err := os.Open(locked); !errors.Is(err, unix.EIO) {
		t.Skipf("a locked terminal can be opened: %v", err)
	}
	path := s.folder.Blob(o.Digest)
	if err := errors.Join(os.Remove(path), os.Symlink(locked, path)); err != nil {
		t.Fatal(err)
	}
	if state := pull(t, s, o); state != Miss {
		t.Errorf("pulled: %s", state)
	}
	settle(t, s)
	eventually(t, "the blob is checked", func() bool { _, err := s.Stat(o.Digest); return err == nil })
	if state := pull(t, s, o); state != Hit {
		t.Errorf("pulled again: %s", state)
	}
}
