package disk_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
)

func TestFolderHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	f, err := disk.Open(dir, disk.Steps{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	_, err = disk.Open(dir, disk.Steps{}, discard)
	if want := fmt.Sprintf("in use by process %d:", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a second owner got %v, want an error with %q", err, want)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	openFolder(t, dir)
}
