package cache

import (
	"os"
	"strings"
	"testing"
)

func TestFolderOfANewerLarderIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	o := newOrigin(1000, 1)
	pull(t, s, o)
	closeStore(t, s)
	for _, c := range []struct {
		content string
		want    string
	}{
		{"larder-cache 2\n", "newer Larder"},
		{"larder-cache 1\n", ""},
		{"", ""}, // a crash may leave this
		{"noise", ""},
		{"larder-cache 0\n", ""},
	} {
		if err := os.WriteFile(s.layout.version(), []byte(c.content), 0o640); err != nil {
			t.Fatal(err)
		}
		again, err := Open(dir, small)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v", c.content, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%q: %v", c.content, err)
		}
		if state := pull(t, again, o); state != Hit {
			t.Errorf("%q: %s", c.content, state)
		}
		closeStore(t, again)
		if version, err := again.layout.readVersion(); err != nil || version != folderVersion {
			t.Errorf("%q was not made anew: %d, %v", c.content, version, err)
		}
	}
}
