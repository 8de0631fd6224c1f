package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncDisk has the disk of a folder write all pending data, so that no server is slowed down by another's files.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
