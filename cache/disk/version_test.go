package disk_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
)

func TestFolderOfANewerLarderIsRefused(t *testing.T) {
	dir := t.TempDir()
	version := filepath.Join(dir, "larder.version")
	for _, c := range []struct {
		content string
		refused bool
	}{
		{"larder-cache 2\n", true},
		{"larder-cache 1\n", false},
		{"", false}, // a crash may leave this
		{"noise", false},
		{"larder-cache 0\n", false},
	} {
		if err := os.WriteFile(version, []byte(c.content), 0o640); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Open(dir, disk.Steps{}, discard)
		if c.refused {
			if err == nil || !strings.Contains(err.Error(), "newer Larder") {
				t.Errorf("%q: %v", c.content, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%q: %v", c.content, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(version); err != nil || string(got) != "larder-cache 1\n" {
			t.Errorf("%q became %q, %v", c.content, got, err)
		}
	}
}
