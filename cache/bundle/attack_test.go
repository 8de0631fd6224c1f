package bundle_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/bundle"
)

// file is an entry of a tar.
type file struct {
	name    string
	content string
	header  tar.Header // Name, Size and Mode are set
}

func (f file) write(w *tar.Writer) error {
	h := f.header
	h.Name, h.Mode = f.name, 0o644
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(f.content))
	}
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := io.WriteString(w, f.content)
	return err
}

// tarOf makes a tar.
func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := f.write(w); err != nil {
			t.Fatalf("%.100s: %v", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// headers returns the headers of a tar.
func headers(t testing.TB, raw []byte) (all []*tar.Header) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
}

// untar undoes tarOf, without folders.
func untar(t testing.TB, raw []byte) (files []file) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files = append(files, file{name: h.Name, content: string(content)})
		}
	}
}

func blob(content string) file {
	return file{name: "blobs/sha256/" + digest.FromString(content).Encoded(), content: content}
}

var (
	layoutFile = file{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}
	emptyIndex = file{name: "index.json", content: `{"schemaVersion":2,"manifests":[]}`}
)

// peak is a reader of hostile input, which watches how much memory is in use.
type peak struct {
	r     io.Reader
	reads int
	max   uint64
}

func (p *peak) Read(b []byte) (int, error) {
	if p.reads++; p.reads%256 == 1 {
		p.look()
	}
	return p.r.Read(b)
}

func (p *peak) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.max = max(p.max, m.HeapAlloc)
}

// readAll is read. It fails the test if that takes more than 64 MiB on top of what is in use.
func readAll(t testing.TB, in io.Reader) error {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // garbage does not count
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	p := &peak{r: in}
	err := read(p)
	p.look()
	if used := int64(p.max) - int64(before.HeapAlloc); used > 64<<20 {
		t.Errorf("%d MiB were used", used>>20)
	}
	return err
}

// read reads a layout to its end, with the content of its blobs.
func read(in io.Reader) error {
	r, err := bundle.NewReader(in)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		switch _, err := r.Next(); {
		case err == io.EOF:
			_, err := r.Layout()
			return err
		case err != nil:
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	}
}

func TestHostileArchivesAreRefusedByTheNameOfTheEntry(t *testing.T) {
	good := blob("content")
	for _, c := range []struct {
		name  string
		entry string // to blame
		files []file
		want  string
	}{
		{"a path that leads up", "../x", []file{{name: "../x"}}, "plain path"},
		{"a path that leads up later", "blobs/../../x", []file{{name: "blobs/../../x"}}, "plain path"},
		{"a path that is not clean", "blobs//sha256/x", []file{{name: "blobs//sha256/x"}}, "plain path"},
		{"an absolute path", "/etc/passwd", []file{{name: "/etc/passwd"}}, "absolute"},
		{"a path of Windows", `..\x`, []file{{name: `..\x`}}, "not allowed"},
		{"a long name", strings.Repeat("a", 255) + "…", []file{{name: strings.Repeat("a", 300)}}, "300 bytes"},
		{"a symbolic link", good.name, []file{{name: good.name, header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}}}, `it is a link, to "/etc/shadow"`},
		{"a hard link", good.name, []file{{name: good.name, header: tar.Header{Typeflag: tar.TypeLink, Linkname: "index.json"}}}, "link"},
		{"a device", "index.json", []file{{name: "index.json", header: tar.Header{Typeflag: tar.TypeChar}}}, "type '3'"},
		{"a pipe", "index.json", []file{{name: "index.json", header: tar.Header{Typeflag: tar.TypeFifo}}}, "type '6'"},
		{"a blob twice", good.name, []file{good, good}, "twice"},
		{"a blob twice, spelt in two ways", good.name, []file{good, {name: "./" + good.name, content: "content"}}, "twice"},
		{"the index twice", "index.json", []file{emptyIndex, emptyIndex}, "twice"},
		{"a blob that is not named by a digest", "blobs/sha256/abc", []file{{name: "blobs/sha256/abc"}}, "no digest"},
		{"a blob with a digest in capitals", "blobs/sha256/" + strings.ToUpper(digest.FromString("x").Encoded()), []file{{name: "blobs/sha256/" + strings.ToUpper(digest.FromString("x").Encoded())}}, "no digest"},
		{"a blob of an algorithm that is not supported", "blobs/sha384/" + digest.SHA384.FromString("").Encoded(), []file{{name: "blobs/sha384/" + digest.SHA384.FromString("").Encoded()}}, "sha384"},
		{"a file below a blob", good.name + "/x", []file{{name: good.name + "/x"}}, "no digest"},
		{"a large index", "index.json", []file{{name: "index.json", content: strings.Repeat(" ", 4<<20+1)}}, "may have 4194304"},
		{"a large manifest.json", "manifest.json", []file{{name: "manifest.json", content: strings.Repeat(" ", 4<<20+1)}}, "may have"},
		{"a large oci-layout", "oci-layout", []file{{name: "oci-layout", content: strings.Repeat(" ", 5<<10)}}, "may have"},
		{"a large description", "larder-bundle.json", []file{{name: "larder-bundle.json", content: strings.Repeat(" ", 8<<20+1)}}, "may have"},
		{"a large signature", "larder-bundle.json.sigstore.json", []file{{name: "larder-bundle.json.sigstore.json", content: strings.Repeat(" ", 64<<10+1)}}, "may have"},
		{"a large file that no layout has", "movie.mp4", []file{{name: "movie.mp4", content: strings.Repeat(" ", 1<<20+1)}}, "no such file"},
		{"a description after the blobs", "larder-bundle.json", []file{good, {name: "larder-bundle.json", content: "{}"}}, "begins with it"},
		{"a signature of nothing", "larder-bundle.json.sigstore.json", []file{{name: "larder-bundle.json.sigstore.json", content: "{}"}, good}, "no larder-bundle.json"},
		{"an index of empty entries", "index.json", []file{layoutFile, {name: "index.json", content: `{"manifests":[` + strings.Repeat("{},", 1_300_000) + `{}]}`}}, "no digest"},
		{"an index of one digest many times", "index.json", []file{layoutFile, {name: "index.json", content: `{"manifests":"` + strings.Repeat("a", 1<<20) + `"}`}}, "not an array"},
		{"two images with one name", "index.json", []file{layoutFile, {name: "index.json", content: `{"manifests":[` + indexed("a", "app:1") + "," + indexed("b", "app:1") + `]}`}}, "two images app:1"},
		{"a name with spaces", "index.json", []file{layoutFile, {name: "index.json", content: `{"manifests":[` + indexed("a", "app: 1") + `]}`}}, "spaces"},
		{"another version of the layout", "oci-layout", []file{{name: "oci-layout", content: `{"imageLayoutVersion":"2.0.0"}`}, emptyIndex}, "2.0.0"},
		{"a manifest.json of empty entries", "manifest.json", []file{layoutFile, emptyIndex, {name: "manifest.json", content: `[` + strings.Repeat("{},", 1_300_000) + `{}]`}}, "no blob"},
		{"a manifest.json of empty names", "manifest.json", []file{layoutFile, emptyIndex, {name: "manifest.json", content: `[{"Config":"` + good.name + `","RepoTags":[` + strings.Repeat(`"",`, 1_300_000) + `""]}]`}}, "no name"},
		{"a manifest.json of short names", "manifest.json", []file{layoutFile, emptyIndex, {name: "manifest.json", content: `[{"Config":"` + good.name + `","RepoTags":[` + strings.Repeat(`"a",`, 1_000_000) + `"a"]}]`}}, "more than 100000"},
		{"a description of empty images", "larder-bundle.json", []file{{name: "larder-bundle.json", content: `{"version":1,"images":[` + strings.Repeat("{},", 2_700_000) + `{}]}`}, good}, "no name"},
		{"a description of empty blobs", "larder-bundle.json", []file{{name: "larder-bundle.json", content: `{"version":1,"blobs":[` + strings.Repeat("{},", 2_700_000) + `{}]}`}, good}, "no digest"},
		{"a description of another version", "larder-bundle.json", []file{{name: "larder-bundle.json", content: `{"version":2,"blobs":{}}`}, good}, "newer Larder"},
		{"a description without a version", "larder-bundle.json", []file{{name: "larder-bundle.json", content: `{}`}, good}, "no version"},
		{"a description that is not JSON", "larder-bundle.json", []file{{name: "larder-bundle.json", content: `hello`}, good}, "invalid character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := tarOf(t, c.files...)
			for how, in := range map[string]io.Reader{"a stream": bytes.NewBuffer(raw), "a file": bytes.NewReader(raw)} {
				err := readAll(t, in)
				var entry *bundle.EntryError
				if !errors.As(err, &entry) || entry.Name != c.entry || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v", how, err)
				}
			}
		})
	}
}

// indexed is an entry of an index.
func indexed(content, name string) string {
	return fmt.Sprintf(`{"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":%q}}`, digest.FromString(content), name)
}

// PAX and GNU have each a form of sparse files. Go's tar writes neither.
func TestSparseFilesAreRefused(t *testing.T) {
	good := blob("content")
	gnu := tarOf(t, good)
	gnu[156] = 'S'
	sum := 0
	copy(gnu[148:156], "        ")
	copy(gnu[257:265], "ustar  \x00")
	copy(gnu[386:], "00000000000\x0000000000007\x00")
	copy(gnu[483:], "00000000007\x00")
	for _, b := range gnu[:512] {
		sum += int(b)
	}
	copy(gnu[148:156], fmt.Sprintf("%06o\x00 ", sum))

	records := "22 GNU.sparse.major=0\n" + "22 GNU.sparse.minor=1\n" + "22 GNU.sparse.size=99\n" +
		"26 GNU.sparse.numblocks=1\n" + "22 GNU.sparse.map=0,7\n"
	pax := append(tarOf(t, file{name: "PaxHeaders/x", content: records})[:1024], tarOf(t, good)...)
	pax[156] = 'x'
	copy(pax[148:156], "        ")
	sum = 0
	for _, b := range pax[:512] {
		sum += int(b)
	}
	copy(pax[148:156], fmt.Sprintf("%06o\x00 ", sum))

	for form, raw := range map[string][]byte{"GNU": gnu, "PAX": pax} {
		err := readAll(t, bytes.NewReader(raw))
		var entry *bundle.EntryError
		if !errors.As(err, &entry) || entry.Name != good.name || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("%s: %v", form, err)
		}
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestSizeThatIsNotThereIsRefused(t *testing.T) {
	good := blob("content")
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: good.name, Size: 100 << 30, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	buf.WriteString("only a few bytes")
	for how, in := range map[string]io.Reader{"a stream": bytes.NewBuffer(buf.Bytes()), "a file": bytes.NewReader(buf.Bytes())} {
		err := readAll(t, in)
		var entry *bundle.EntryError
		if !errors.As(err, &entry) || entry.Name != good.name || !strings.Contains(err.Error(), "truncated") {
			t.Errorf("%s: %v", how, err)
		}
	}
	// Of a file, the content need not be read to tell.
	if _, err := bundle.NewReader(bytes.NewReader(buf.Bytes())); err == nil || !strings.Contains(err.Error(), "the file ends") {
		t.Errorf("the header of a file: %v", err)
	}
}

// many is a tar of many small entries.
func many(name func(int) string) io.Reader {
	r, w := io.Pipe()
	go func() {
		out := tar.NewWriter(w)
		for i := range 1_000_000 {
			if file := (file{name: name(i)}).write(out); file != nil {
				return // the reader has refused it
			}
		}
		w.Close()
	}()
	return r
}

func TestMillionEntriesAreRefused(t *testing.T) {
	for what, name := range map[string]func(int) string{
		"files": func(i int) string { return fmt.Sprintf("file-%07d", i) },
		"blobs": func(i int) string { return fmt.Sprintf("blobs/sha256/%064x", i) },
	} {
		t.Run(what, func(t *testing.T) {
			in := many(name)
			err := readAll(t, in)
			in.(io.Closer).Close()
			var entry *bundle.EntryError
			if !errors.As(err, &entry) || entry.Name != name(100_000) || !strings.Contains(err.Error(), "more than 100000 entries") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A bomb decompresses to much more than it has. What it decompresses to is checked as it
// flows.
func TestBombsAreRefused(t *testing.T) {
	var bomb bytes.Buffer
	w := tar.NewWriter(&bomb)
	if err := w.WriteHeader(&tar.Header{Name: "index.json", Size: 1 << 40, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(&bomb, zeros{}, 8<<20); err != nil {
		t.Fatal(err)
	}
	zipped, zstandard := compressed(t, bomb.Bytes())
	for form, raw := range map[string][]byte{"gzip": zipped, "zstd": zstandard} {
		err := readAll(t, bytes.NewReader(raw))
		var entry *bundle.EntryError
		if !errors.As(err, &entry) || entry.Name != "index.json" {
			t.Errorf("%s: %v", form, err)
		}
	}
}

// A frame may ask for a window of gigabytes.
func TestLargeWindowsAreRefused(t *testing.T) {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(256<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, 300<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := readAll(t, bytes.NewReader(buf.Bytes())); err == nil || !strings.Contains(err.Error(), "--long") {
		t.Errorf("got %v", err)
	}
}

// compressed returns content in both forms that can be read.
func compressed(t testing.TB, content []byte) (zipped, zstandard []byte) {
	t.Helper()
	var a, b bytes.Buffer
	z := gzip.NewWriter(&a)
	s, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{z, s} {
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return a.Bytes(), b.Bytes()
}

// The largest description that is accepted must leave memory for everything else.
func TestLargestDescriptionIsReadInBoundedMemory(t *testing.T) {
	d := bundle.Description{Version: 1, Parts: 1, Files: bundle.Files{
		Layout: digest.FromString(layoutFile.content), Index: digest.FromString(emptyIndex.content),
	}}
	for i := range 70_000 {
		d.Blobs = append(d.Blobs, bundle.Blob{Digest: digest.Digest(fmt.Sprintf("sha256:%064x", i)), Part: 1})
	}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	files := []file{layoutFile, emptyIndex, {name: "larder-bundle.json", content: string(raw)}}
	for _, b := range d.Blobs {
		files = append(files, file{name: "blobs/sha256/" + b.Digest.Encoded()})
	}
	archive := tarOf(t, files...)
	d.Blobs = nil
	if err := readAll(t, bytes.NewReader(archive)); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoLayoutIsRefused(t *testing.T) {
	zipped, _ := compressed(t, []byte(strings.Repeat("hello", 1000)))
	for _, c := range []struct {
		name, content, want string
	}{
		{"nothing", "", "has only 0 bytes"},
		{"a text", "hello", "has only 5 bytes"},
		{"a long text", strings.Repeat("hello", 1000), "no tar"},
		{"a compressed text", string(zipped), "tar"},
		{"xz", "\xfd7zXZ\x00" + strings.Repeat("x", 1000), "decompress it first"},
		{"bzip2", "BZh91AY" + strings.Repeat("x", 1000), "decompress it first"},
		{"a broken gzip", "\x1f\x8b" + strings.Repeat("x", 1000), "gzip"},
		{"an empty tar", string(tarOf(t)), "no tar"},
		{"a tar of something else", string(tarOf(t, file{name: "hello.txt", content: "hello"})), "no OCI layout"},
		{"a layout without an index", string(tarOf(t, layoutFile, blob("a"))), "no index.json"},
		{"an index without a layout", string(tarOf(t, emptyIndex, blob("a"))), "no oci-layout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := readAll(t, strings.NewReader(c.content)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
