package disk_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// openFolder opens a folder that is closed with the test.
func openFolder(t *testing.T, dir string) *disk.Folder {
	t.Helper()
	f, err := disk.Open(dir, disk.Steps{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}
