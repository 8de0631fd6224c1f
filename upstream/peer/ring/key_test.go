package ring_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/peer/ring"
)

func TestKeyFileHasOneKeyOrTwo(t *testing.T) {
	a, b, c := ring.NewKey(), ring.NewKey(), ring.NewKey()
	for name, test := range map[string]struct {
		text string
		want []ring.Key
		err  string
	}{
		"one":          {a.Encode() + "\n", []ring.Key{a}, ""},
		"no new line":  {a.Encode(), []ring.Key{a}, ""},
		"two":          {"# new\n" + a.Encode() + "\n\n  # old\r\n" + b.Encode() + "\r\n", []ring.Key{a, b}, ""},
		"none":         {"# nothing\n", nil, "no key"},
		"empty":        {"", nil, "no key"},
		"three":        {a.Encode() + "\n" + b.Encode() + "\n" + c.Encode(), nil, "3 keys"},
		"twice":        {a.Encode() + "\n" + a.Encode(), nil, "line 2 repeats"},
		"half":         {a.Encode()[:20], nil, "line 1 is not a key"},
		"16 bytes":     {"AAAAAAAAAAAAAAAAAAAAAA==", nil, "line 1 is not a key"},
		"no base64":    {"\n" + strings.Repeat("!", 44), nil, "line 2 is not a key"},
		"endless line": {strings.Repeat("A", 1<<20), nil, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := ring.ParseKeys([]byte(test.text))
			switch {
			case test.err == "" && (err != nil || len(keys) != len(test.want)):
				t.Fatalf("got %d keys and %v, want %d", len(keys), err, len(test.want))
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Fatalf("got %v, want an error with %q", err, test.err)
			}
			for i, want := range test.want {
				if keys[i] != want {
					t.Errorf("key %d is another one", i)
				}
			}
			if secret := strings.TrimSpace(test.text); err != nil && len(secret) > 10 && strings.Contains(err.Error(), secret[:10]) {
				t.Errorf("the error repeats the file's text: %v", err)
			}
		})
	}
}

func FuzzKeysAreNeverMoreThanTwo(f *testing.F) {
	f.Add([]byte(ring.NewKey().Encode() + "\n#\n" + ring.NewKey().Encode()))
	f.Fuzz(func(t *testing.T, text []byte) {
		if keys, err := ring.ParseKeys(text); err == nil && (len(keys) == 0 || len(keys) > 2) {
			t.Errorf("%d keys", len(keys))
		}
	})
}

func TestKeyFileOfOthersIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.key")
	if err := os.WriteFile(path, []byte(ring.NewKey().Encode()), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o440: true, 0o640: true, 0o644: false, 0o660: false, 0o604: false, 0o602: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ring.ReadKeys(path)
		if (err == nil) != ok || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := ring.ReadKeys(path + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := ring.ReadKeys(filepath.Dir(path)); err == nil {
		t.Error("a folder is read as a key file")
	}
}

func TestNoFormatShowsAKey(t *testing.T) {
	key := ring.NewKey()
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, key); got != "(a key)" {
			t.Errorf("%s shows %s", format, got)
		}
	}
}
