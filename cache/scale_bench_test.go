package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scales returns the numbers of blobs for the benchmarks. LARDER_SCALE=1 adds a hundred
// thousand and a million, which take minutes to create.
func scales() []int {
	if os.Getenv("LARDER_SCALE") == "" {
		return []int{1000}
	}
	return []int{1000, 100_000, 1_000_000}
}

// perImage is how many blobs an image of the benchmarks has, including its manifest.
const perImage = 8

// scaleBlob returns the i-th blob of a large folder. Every perImage-th is a manifest, and the
// blobs up to the next one are its layers.
func scaleBlob(i int) digest.Digest {
	if i%perImage == 0 {
		return digest.FromBytes(scaleManifest(i))
	}
	return digest.FromBytes(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

func scaleManifest(i int) []byte {
	var layers []string
	for j := 1; j < perImage; j++ {
		layers = append(layers, fmt.Sprintf(`{"digest":%q,"size":%d}`, scaleBlob(i+j), disk.BlockSize))
	}
	return fmt.Appendf(nil, `{"mediaType":%q,"layers":[%s]}`, ocispec.MediaTypeImageManifest, strings.Join(layers, ","))
}

func scaleRepo(i int) Repository {
	return Repository{Upstream: "123456789012.dkr.ecr.us-east-1.amazonaws.com", Name: fmt.Sprintf("team-%d/app-%d", i%50, i%1000)}
}

// makeLarge creates a folder with n blobs and an index that knows them. The blobs are holes,
// apart from the manifests.
func makeLarge(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	s := openLarge(b, dir)
	now := time.Now()
	uses := make(map[digest.Digest]time.Time)
	for i := range n {
		if err := makeLargeBlob(s.folder, i); err != nil {
			b.Fatal(err)
		}
		uses[scaleBlob(i)] = now.Add(-time.Duration(i) * time.Second)
		if i%perImage == 0 {
			recordLargeImage(b, s.index, i, now)
		}
	}
	if err := s.index.PutUses(uses); err != nil {
		b.Fatal(err)
	}
	closeLarge(b, s)
	return dir
}

// recordLargeImage records the image whose manifest is the i-th blob.
func recordLargeImage(b *testing.B, ix *records.Index, i int, now time.Time) {
	b.Helper()
	image, manifest := i/perImage, scaleBlob(i)
	rec := records.Blob{Size: disk.BlockSize, Fetched: now, MediaType: ocispec.MediaTypeImageManifest}
	members := map[digest.Digest]records.Member{manifest: {Size: disk.BlockSize, Manifest: true}}
	for j := 1; j < perImage; j++ {
		d := scaleBlob(i + j)
		rec.Children = append(rec.Children, d)
		members[d] = records.Member{Size: disk.BlockSize}
		if err := ix.PutBlob(d, records.Blob{Size: disk.BlockSize, Fetched: now}); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(
		ix.PutManifest(scaleRepo(image), manifest, rec, members),
		ix.PutTag(scaleRepo(image), strconv.Itoa(image), records.Tag{Digest: manifest, Checked: now}),
	); err != nil {
		b.Fatal(err)
	}
}

func makeLargeBlob(l *disk.Folder, i int) error {
	path := l.Blob(scaleBlob(i))
	if err := os.Mkdir(filepath.Dir(path), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if i%perImage == 0 {
		return os.WriteFile(path, scaleManifest(i), manifestMode)
	}
	return errors.Join(os.WriteFile(path, nil, 0o640), os.Truncate(path, disk.BlockSize))
}

// openLarge opens a folder whose blobs do not match their digests. The caller closes it with
// closeLarge: closeStore would report the mismatches.
func openLarge(b *testing.B, dir string) *Store {
	b.Helper()
	opts := edgeOptions
	opts.Log = slog.New(slog.DiscardHandler)
	s, err := Open(dir, opts)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func closeLarge(b *testing.B, s *Store) {
	b.Helper()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkScale measures what must not take long with large folders:
//
//   - starts, with the index and without: until a tag and a layer are served
//     (serving-ms), and until the folder is loaded (scanned-ms); rss-MB is the
//     memory of the process then, heap-MB the part of it that is in use;
//   - a snapshot;
//   - the eviction of one blob.
func BenchmarkScale(b *testing.B) {
	for _, n := range scales() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := makeLarge(b, n)
			b.Run("start", func(b *testing.B) {
				benchmarkStart(b, dir, n, func() {})
			})
			b.Run("start without index", func(b *testing.B) {
				benchmarkStart(b, dir, n, func() {
					if err := os.RemoveAll(disk.At(dir).Index()); err != nil {
						b.Fatal(err)
					}
				})
			})
			s := openLarge(b, dir)
			loaded(b, s)
			b.Run("snapshot", func(b *testing.B) { benchmarkSnapshot(b, s) })
			b.Run("evict", func(b *testing.B) { benchmarkEvict(b, s) })
			closeLarge(b, s)
		})
	}
}

func benchmarkStart(b *testing.B, dir string, n int, before func()) {
	var serving, scanned, closing time.Duration
	var rss, heap float64
	for b.Loop() {
		before()
		debug.FreeOSMemory()
		begin := time.Now()
		s := openLarge(b, dir)
		image := n / 2 / perImage
		if _, _, err := s.Tag(b.Context(), scaleRepo(image), strconv.Itoa(image), dead); err != nil {
			b.Fatal(err)
		}
		blob, err := s.Open(b.Context(), scaleBlob(image*perImage+1), Source{})
		if err != nil {
			b.Fatal(err)
		}
		serving += time.Since(begin)
		if err := blob.Close(); err != nil {
			b.Error(err)
		}
		loaded(b, s)
		scanned += time.Since(begin)
		rss, heap = residentMB(b), heapMB()
		if got := s.items.Len(); got != n {
			b.Fatalf("%d blobs were found of %d", got, n)
		}
		begin = time.Now()
		closeLarge(b, s)
		closing += time.Since(begin)
	}
	b.ReportMetric(float64(serving.Milliseconds())/float64(b.N), "serving-ms")
	b.ReportMetric(float64(scanned.Milliseconds())/float64(b.N), "scanned-ms")
	b.ReportMetric(float64(closing.Milliseconds())/float64(b.N), "close-ms")
	b.ReportMetric(rss, "rss-MB")
	b.ReportMetric(heap, "heap-MB")
	b.ReportMetric(0, "ns/op")
}

// residentMB returns the memory of the process, as the kernel counts it.
func residentMB(b *testing.B) float64 {
	b.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("memory is read from /proc: ", err)
	}
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB / 1000
}

func heapMB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the second collection frees what pools keep
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

func benchmarkSnapshot(b *testing.B, s *Store) {
	for b.Loop() {
		b.StopTimer()
		if err := s.index.PutUses(map[digest.Digest]time.Time{scaleBlob(0): time.Now()}); err != nil { // a change
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.writeSnapshot(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(s.folder.Snapshot())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB")
}

// benchmarkEvict puts each evicted blob back, so that their number stays the same.
func benchmarkEvict(b *testing.B, s *Store) {
	for b.Loop() {
		d, _, ok := s.items.First()
		if !ok {
			b.Fatal("nothing is left to evict")
		}
		if err := evictNow(s, 1); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := putBack(s, d); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func putBack(s *Store, d digest.Digest) error {
	now := time.Now()
	s.items.Add(d, recency.Item{Bytes: disk.BlockSize}, now)
	s.space.Add(disk.BlockSize)
	path := s.folder.Blob(d)
	return errors.Join(
		os.WriteFile(path, nil, 0o640),
		os.Truncate(path, disk.BlockSize),
		s.index.PutMember(scaleRepo(0), d, records.Member{Size: disk.BlockSize}),
		s.index.PutBlob(d, records.Blob{Size: disk.BlockSize, Fetched: now}),
	)
}
