package fill // white-box: the syntax of the journal is not visible from outside

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestJournalIsReadUpToTheFirstInvalidLine(t *testing.T) {
	const head = "larder-partial 1 100\n"
	one, two := note{off: 0, n: 10, crc: 0xabc}, note{off: 90, n: 10, crc: 1}
	for _, c := range []struct {
		name, text string
		want       []note
	}{
		{"no notes", head, nil},
		{"two notes", head + "0 10 abc\n90 10 1\n", []note{one, two}},
		{"torn at the end", head + "0 10 abc\n90 10 1", []note{one}},
		{"torn in the middle", head + "0 10 abc\n90 1\x00\x00\n90 10 1\n", []note{one}},
		{"beyond the end", head + "0 10 abc\n91 10 1\n90 10 1\n", []note{one}},
		{"before the beginning", head + "0 10 abc\n-1 10 1\n", []note{one}},
		{"of length 0", head + "0 10 abc\n5 0 1\n", []note{one}},
		{"that overflows", head + "0 10 abc\n9223372036854775807 9223372036854775807 1\n", []note{one}},
		{"with a checksum that is too long", head + "0 10 abc\n90 10 123456789\n", []note{one}},
	} {
		t.Run(c.name, func(t *testing.T) {
			size, notes, length, err := readJournal(strings.NewReader(c.text))
			if err != nil || size != 100 || !slices.Equal(notes, c.want) {
				t.Errorf("got %d, %v, %v", size, notes, err)
			}
			_, again, whole, err := readJournal(strings.NewReader(c.text[:length]))
			if err != nil || whole != length || !slices.Equal(again, c.want) {
				t.Errorf("up to %d: %v, %d, %v", length, again, whole, err)
			}
		})
	}
	for _, text := range []string{"", "larder-partial 1 -5\n", "larder-partial 1 0\n", "larder-partial 2 100\n", "larder-partial 1 x\n", "\x00\x00\x00"} {
		if _, _, _, err := readJournal(strings.NewReader(text)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzReadJournal(f *testing.F) {
	f.Add("larder-partial 1 100\n0 10 abc\n90 10 1\n")
	f.Add("larder-partial 1 9223372036854775807\n9223372036854775806 1 ffffffff\n")
	f.Add("larder-partial 1 0\n0 0 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		size, notes, length, err := readJournal(strings.NewReader(text))
		if err != nil {
			return
		}
		if size <= 0 || length > int64(len(text)) {
			t.Fatalf("size %d, %d valid bytes", size, length)
		}
		segs := newSegments(size)
		for _, n := range notes {
			if n.off < 0 || n.n <= 0 || n.off+n.n < 0 || n.off+n.n > size {
				t.Fatalf("note %+v is not within %d bytes", n, size)
			}
			segs.claim(n.off, n.n)
		}
	})
}
