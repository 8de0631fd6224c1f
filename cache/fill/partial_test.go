package fill // white-box: only the fill reads notes back

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
)

func openFolder(t *testing.T, steps disk.Steps) *disk.Folder {
	t.Helper()
	folder, err := disk.Open(t.TempDir(), steps, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := folder.Close(); err != nil {
			t.Error(err)
		}
	})
	return folder
}

func TestPartialKeepsItsNotes(t *testing.T) {
	folder, d := openFolder(t, disk.Steps{}), digest.FromString("a blob")
	p, err := CreatePartial(folder, d, 1000)
	if err != nil {
		t.Fatal(err)
	}
	want := []note{{0, 10, 1}, {500, 400, 0xffffffff}}
	for _, n := range want {
		if err := p.note(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Keep(), p.data.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := ResumePartial(folder, d)
	if err != nil || again.Size() != 1000 || !slices.Equal(again.notes, want) {
		t.Fatalf("got %+v, %v", again, err)
	}
	if err := errors.Join(again.Keep(), again.data.Close()); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(folder.Partial(d).Data, 999); err != nil {
		t.Fatal(err)
	}
	if _, err := ResumePartial(folder, d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a data file of another size: %v", err)
	}
}

func TestPartialThatCannotBeCreatedLeavesNoFile(t *testing.T) {
	for _, failing := range []disk.Op{disk.OpPreallocate, disk.OpWrite} {
		fails := false
		folder := openFolder(t, disk.Steps{Around: func(s disk.Step, take func() error) error {
			if fails && s.Op == failing {
				return unix.EIO
			}
			return take()
		}})
		fails = true
		if _, err := CreatePartial(folder, digest.FromString("a blob"), 1000); !errors.Is(err, unix.EIO) {
			t.Errorf("%s failed, and CreatePartial returned %v", failing, err)
		}
		left, err := os.ReadDir(filepath.Join(folder.Dir(), "partial"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s failed, and left %v, %v", failing, left, err)
		}
	}
}
