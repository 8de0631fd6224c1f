package records_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
)

// imageOf is an image of so many layers, with a tag and a pin, as it is recorded and as it is
// read.
func imageOf(layers int) (records.Image, contents) {
	pin := records.Pin{Repository: team, Reference: "v1"}
	image := records.Image{
		Repository: team,
		Manifests:  map[digest.Digest]records.Blob{manifest: {Size: 5, Fetched: now, MediaType: ocispec.MediaTypeImageManifest}},
		Members:    map[digest.Digest]records.Member{manifest: {Size: 5, Manifest: true, Role: records.ManifestOnly, Proven: records.Proven}},
		Name:       "v1",
		Tag:        records.Tag{Digest: manifest, Checked: now},
		Pin:        pin,
		PinRecord:  records.PinRecord{Since: now, Bundle: "disk 1"},
	}
	want := contents{
		MediaTypes: map[digest.Digest]string{manifest: ocispec.MediaTypeImageManifest},
		Uses:       map[digest.Digest]int64{},
		Members:    map[records.RepoDigest]records.Member{},
		Tags:       map[string]records.Tag{team.Image("v1"): image.Tag},
		Pins:       map[records.Pin]records.PinRecord{pin: image.PinRecord},
		Referrers:  map[records.RepoDigest]records.Referrers{},
	}
	for i := range layers {
		image.Members[digest.FromString(fmt.Sprint(i))] = records.Member{Size: 7, Proven: records.Proven}
	}
	for d, rec := range image.Members {
		want.Members[records.RepoDigest{Repository: team, Digest: d}] = rec
	}
	return image, want
}

func TestPublishedImageIsWholeAfterEveryRestart(t *testing.T) {
	for _, layers := range []int{3, 20_000} { // in one transaction, and in several
		dir := t.TempDir()
		s := open(t, dir)
		image, want := imageOf(layers)
		must(t, s.Publish(image))
		if diff := cmp.Diff(want, read(t, s.Index)); diff != "" {
			t.Errorf("%d layers (-want +got):\n%.2000s", layers, diff)
		}
		s.close(t)
		if diff := cmp.Diff(want, read(t, open(t, dir).Index)); diff != "" {
			t.Errorf("%d layers, after a restart (-want +got):\n%.2000s", layers, diff)
		}
	}
}

// The log of the index is cut at every place, as a power cut may do.
func TestCrashLeavesAPublishedImageOrNothingOfIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, want := imageOf(3)
	log := logOf(t, dir)
	before := len(bytes.TrimRight(readFile(t, log), "\x00"))
	must(t, s.Publish(image))
	whole := readFile(t, log)
	after := len(bytes.TrimRight(whole, "\x00"))
	if after-before < 500 {
		t.Fatalf("the log has grown from %d to %d bytes", before, after)
	}
	nothing := contents{
		MediaTypes: map[digest.Digest]string{}, Uses: map[digest.Digest]int64{}, Members: map[records.RepoDigest]records.Member{},
		Tags: map[string]records.Tag{}, Pins: map[records.Pin]records.PinRecord{}, Referrers: map[records.RepoDigest]records.Referrers{},
	}
	for cut := before; cut <= after; cut += max(1, min(101, after-cut)) {
		crashed := t.TempDir()
		must(t, os.Mkdir(filepath.Join(crashed, "index"), 0o750))
		files, err := filepath.Glob(filepath.Join(dir, "index", "*"))
		must(t, err)
		for _, path := range files {
			content := readFile(t, path)
			if path == log {
				content = whole[:cut]
			}
			to := filepath.Join(crashed, "index", filepath.Base(path))
			must(t, os.WriteFile(to, bytes.TrimRight(content, "\x00"), 0o600), os.Truncate(to, int64(len(readFile(t, path)))))
		}
		expect := nothing
		if cut == after {
			expect = want
		}
		one := open(t, crashed)
		if diff := cmp.Diff(expect, read(t, one.Index)); diff != "" {
			t.Errorf("the log is cut after %d of %d bytes (-want +got):\n%s", cut-before, after-before, diff)
		}
		one.close(t)
	}
}

func logOf(t *testing.T, dir string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "index", "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("the logs are %v, %v", logs, err)
	}
	return logs[0]
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	return raw
}

// A power cut may keep what was written last and lose what was written before, unless that was
// synced.
func TestImageIsNamedOnceItsRecordsAreDurable(t *testing.T) {
	for layers, transactions := range map[int]int{3: 1, 40_000: 2} { // the logs of 40,000 are several
		var s *site
		var named []bool // for each sync of a log, if the image had its name then
		logs := make(map[string]bool)
		s = openWith(t, t.TempDir(), disk.Steps{Around: func(step disk.Step, take func() error) error {
			if step.Op == disk.OpSync && filepath.Ext(step.Path) == ".mem" {
				_, err := s.Tag(team, "v1")
				named = append(named, err == nil)
				logs[step.Path] = true
			}
			return take()
		}}, discard)
		image, _ := imageOf(layers)
		must(t, s.Publish(image))
		if n := len(named); n < transactions || !named[n-1] || transactions > 1 && named[0] {
			t.Errorf("%d layers: at the syncs of logs, the image had its name: %v", layers, named)
		}
		if transactions > 1 && len(logs) < 2 {
			t.Errorf("%d layers: %v were synced", layers, logs)
		}
	}
}

func TestImageIsNotPublishedInMemory(t *testing.T) {
	s := openWith(t, t.TempDir(), disk.Steps{Around: func(step disk.Step, take func() error) error {
		if step.Op == disk.OpCreate && filepath.Base(step.Path) == "index.opening" {
			return unix.EINVAL
		}
		return take()
	}}, discard)
	image, _ := imageOf(3)
	if err := s.Publish(image); err == nil || !s.InMemory() {
		t.Errorf("published: %v; in memory: %t", err, s.InMemory())
	}
	if got := read(t, s.Index); len(got.Members) > 0 || len(got.Tags) > 0 || len(got.Pins) > 0 {
		t.Errorf("left: %+v", got)
	}
}

func TestImageThatCannotBeRecordedLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	image, _ := imageOf(3)
	image.Name = strings.Repeat("v", 70_000)
	if err := s.Publish(image); err == nil {
		t.Error("a tag of 70,000 bytes was recorded")
	}
	if got := read(t, s.Index); len(got.Members) > 0 || len(got.MediaTypes) > 0 || len(got.Tags) > 0 || len(got.Pins) > 0 {
		t.Errorf("left: %+v", got)
	}
}
