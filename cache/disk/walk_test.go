package disk_test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestEachPartialSkipsAPartialThatDisappears(t *testing.T) {
	folder := openFolder(t, t.TempDir())
	all := []digest.Digest{digest.FromString("a"), digest.FromString("b")}
	for _, d := range all {
		if err := os.WriteFile(folder.Partial(d).Data, []byte("data"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	var visited int
	err := folder.EachPartial(func(d digest.Digest, _ fs.FileInfo) error {
		visited++
		for _, other := range all {
			if other != d {
				return os.Remove(folder.Partial(other).Data) // as its fill does when it ends
			}
		}
		return nil
	})
	if err != nil || visited != 1 {
		t.Errorf("%d partials were visited, with error %v; want 1", visited, err)
	}
}
