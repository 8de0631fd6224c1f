package cachetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/opencontainers/go-digest"
)

var content = []byte("a blob")

// folder is a cache with one blob, one manifest and one tag.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := cache.Open(dir, cache.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	blob, err := s.Open(t.Context(), digest.FromBytes(content), cache.Source{Fetch: func(context.Context, cache.Range) (cache.Content, error) {
		return cache.Content{Body: io.NopCloser(bytes.NewReader(content)), Size: int64(len(content))}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, blob); err != nil {
		t.Fatal(err)
	}
	blob.Close()
	raw := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`)
	repository := cache.Repository{Upstream: "registry.test", Name: "team/app"}
	_, _, err = s.Tag(t.Context(), repository, "v1", func(context.Context, string, bool) (cache.Manifest, error) {
		return cache.Manifest{Digest: digest.FromBytes(raw), Raw: raw}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cachetest.CheckBlobs(dir); err != nil {
		t.Errorf("while it is open: %v", err)
	}
	if err := cachetest.Check(dir); err == nil {
		t.Error("a folder that is open was checked")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCheckFindsEachMistake(t *testing.T) {
	d := digest.FromBytes(content)
	blob := "blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded()
	partial := "partial/sha256-" + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string) error
		want   string
	}{
		"nothing": {nothing, ""},
		"a blob with another byte": {
			func(_ *testing.T, dir string) error {
				return os.WriteFile(filepath.Join(dir, blob), []byte("A blob"), 0)
			},
			"does not match its name",
		},
		"an empty blob": {
			func(_ *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, blob), 0) },
			"does not match its name",
		},
		"a blob with mode 0644": {
			func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, blob), 0o644) },
			"mode",
		},
		"a folder with mode 0755": {
			func(_ *testing.T, dir string) error { return os.Chmod(filepath.Dir(filepath.Join(dir, blob)), 0o755) },
			"mode",
		},
		"a blob in the wrong folder": {
			func(_ *testing.T, dir string) error {
				to := filepath.Join(dir, "blobs/sha512", d.Encoded()[:2])
				return os.Rename(filepath.Dir(filepath.Join(dir, blob)), to)
			},
			"invalid",
		},
		"a file that is not a blob": {touch("blobs/sha256/README"), "not belong"},
		"a folder that is not one of blobs": {
			func(_ *testing.T, dir string) error { return os.Mkdir(filepath.Join(dir, "blobs/sha256/zz"), 0o750) },
			"not belong",
		},
		"a temporary file":                  {touch("partial/put-1"), "not belong"},
		"a data file without a journal":     {touch(partial), "other file"},
		"a journal without a data file":     {touch(partial + ".journal"), "other file"},
		"a partial of two files":            {touch(partial, partial+".journal"), ""},
		"a partial of a complete blob":      {touch("partial/sha256-"+d.Encoded(), "partial/sha256-"+d.Encoded()+".journal"), "complete"},
		"a record of another size":          {put("blob/"+d.String(), `{"size":7}`), "says 7 bytes"},
		"a record without a file":           {put("blob/sha256:"+strings.Repeat("0", 64), `{"size":7}`), ""},
		"a record that is not JSON":         {put("blob/"+d.String(), `{`), "unexpected end"},
		"a blob with children":              {put("blob/"+d.String(), `{"size":6,"children":["`+d.String()+`"]}`), "names other"},
		"a use without a time":              {put("used/"+d.String(), `0`), "never used"},
		"a membership in no repository":     {put("member/"+d.String()+"/", `{"size":6}`), "no repository"},
		"a membership with an invalid size": {put("member/"+d.String()+"/r/n", `{"size":-2}`), "size"},
		"a tag of nothing":                  {put("tag/r/n:v1", `{"digest":"","checked":"2026-01-01T00:00:00Z"}`), "invalid"},
		"a tag that was something before":   {put("tag/r/n:v1", `{"digest":"`+d.String()+`","checked":"2026-01-01T00:00:00Z","before":"x"}`), "before"},
		"a blob with platforms":             {put("blob/"+d.String(), `{"size":6,"platforms":["`+d.String()+`"]}`), "is an index"},
		"a blob that needs all":             {put("blob/"+d.String(), `{"size":6,"needsAll":true}`), "is an index"},
		"a platform that is no child":       {put("blob/"+d.String(), `{"size":6,"mediaType":"m","platforms":["`+d.String()+`"]}`), "none of its children"},
		"platforms, and no platforms":       {put("blob/"+d.String(), `{"size":6,"mediaType":"m","children":["`+d.String()+`"],"platforms":["`+d.String()+`"],"needsAll":true}`), "says that it has none"},
		"an index with a platform":          {put("blob/"+d.String(), `{"size":6,"mediaType":"m","children":["`+d.String()+`"],"platforms":["`+d.String()+`"]}`), ""},
		"a tag that was never confirmed":    {put("tag/r/n:v1", `{"digest":"`+d.String()+`"}`), "never checked"},
		"a pin of nothing":                  {put("pin/r/n", `{}`), "no image"},
		"a pin of an image":                 {put("pin/r/n:v1", `{"since":"2026-01-01T00:00:00Z"}`), ""},
		"a verdict on a manifest":           {put("verdict/r/n@"+d.String(), `{"since":"2026-01-01T00:00:00Z","rule":1}`), ""},
		"a verdict on a tag":                {put("verdict/r/n:v1", `{"since":"2026-01-01T00:00:00Z"}`), "no manifest"},
		"a verdict without a time":          {put("verdict/r/n@"+d.String(), `{}`), "not expired"},
		"an invalid subject":                {put("blob/"+d.String(), `{"size":6,"mediaType":"m","subject":"x"}`), "it names"},
		"a scrub at an invalid position":    {put("scrub/position", `{"after":"x"}`), "invalid"},
		"an unknown record":                 {put("blob", `{}`), "invalid"},
		"an unknown kind":                   {put("pins/r/n:v1", `{}`), "not known"},
		"a manifest of size 0":              {put("blob/"+d.String(), `{"size":0,"mediaType":"m"}`), "says 0 bytes"},
		"a manifest of size 0 while the index is rebuilt": {
			func(t *testing.T, dir string) error {
				return errors.Join(
					put("blob/"+d.String(), `{"size":0,"mediaType":"m"}`)(t, dir),
					put("format", `{"version":1,"rebuilding":true}`)(t, dir),
				)
			},
			"",
		},
		"another version":                  {put("format", `{"version":2}`), "version"},
		"an unknown file":                  {touch("core"), "not belong"},
		"an unfinished snapshot":           {touch("index.snapshot.new"), "not belong"},
		"a file in place of a folder":      {replace("partial"), "not belong"},
		"an index set aside":               {touch("index.broken-20260101T000000.000"), ""},
		"a start that crashed":             {touch("index.opening"), ""},
		"an empty snapshot":                {snapshot(func([]byte) []byte { return nil }), "header"},
		"a torn snapshot":                  {snapshot(func(b []byte) []byte { return b[:len(b)-1] }), "checksum"},
		"a snapshot that is only a header": {snapshot(func([]byte) []byte { return []byte("larder-snapshot 1\n") }), "checksum"},
		"a snapshot with a flipped bit":    {snapshot(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), "checksum"},
		"no snapshot":                      {func(_ *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "index.snapshot")) }, ""},
		"a snapshot with mode 0644":        {func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, "index.snapshot"), 0o644) }, "mode"},
		"a torn index": {
			func(_ *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, "index/MANIFEST"), 3) },
			"open the index",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			if err := c.damage(t, dir); err != nil {
				t.Fatal(err)
			}
			err := cachetest.Check(dir)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("found %v, want %q", err, c.want)
			}
		})
	}
}

func nothing(*testing.T, string) error { return nil }

func touch(names ...string) func(t *testing.T, dir string) error {
	return func(t *testing.T, dir string) error {
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o640); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
}

// replace replaces an empty folder by a file.
func replace(name string) func(t *testing.T, dir string) error {
	return func(t *testing.T, dir string) error {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
		return touch(name)(t, dir)
	}
}

// snapshot changes the snapshot of the index.
func snapshot(change func([]byte) []byte) func(t *testing.T, dir string) error {
	return func(_ *testing.T, dir string) error {
		path := filepath.Join(dir, "index.snapshot")
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, change(raw), 0o600)
	}
}

// put writes a record as a store would.
func put(key, value string) func(t *testing.T, dir string) error {
	return func(_ *testing.T, dir string) error {
		db, err := badger.Open(badger.DefaultOptions(filepath.Join(dir, "index")).WithLogger(nil))
		if err != nil {
			return err
		}
		if err := db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(key), []byte(value)) }); err != nil {
			return err
		}
		return db.Close()
	}
}

func TestUsageAgreesWithDu(t *testing.T) {
	dir := t.TempDir()
	before, err := cachetest.Usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 100<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := cachetest.Usage(dir)
	if grown := after - before; err != nil || grown < 100<<10 || grown > 116<<10 {
		t.Errorf("100 KiB take %d bytes, %v", grown, err)
	}
}
