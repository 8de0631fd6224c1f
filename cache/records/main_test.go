package records_test

import (
	"context"
	"flag"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) {
	// With the race detector a case is slow. Before the flags are parsed, so that one of them comes first.
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var (
	team  = records.Repository{Upstream: "registry.test", Name: "team/app"}
	other = records.Repository{Upstream: "localhost:5000", Name: "a/b"}

	third = records.Repository{Upstream: "third.test", Name: "c"}

	layer    = digest.FromString("layer")
	manifest = digest.SHA512.FromString("manifest")

	now = time.Unix(1_700_000_000, 0).UTC()

	discard = slog.New(slog.DiscardHandler)
)

// site is a cache folder with its index.
type site struct {
	*records.Index
	folder *disk.Folder
	health *disk.Health
	closed bool
}

// open opens the index of a folder. It is closed with the test. The folder is checked then.
func open(t testing.TB, dir string) *site {
	t.Helper()
	return openWith(t, dir, disk.Steps{}, discard)
}

func openWith(t testing.TB, dir string, steps disk.Steps, log *slog.Logger) *site {
	t.Helper()
	folder, err := disk.Open(dir, steps, log)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{folder: folder, health: disk.NewHealth(log)}
	if s.Index, err = records.Open(folder, s.health, 2, log); err != nil {
		t.Fatal(err, folder.Close())
	}
	t.Cleanup(func() { s.close(t) })
	return s
}

func (s *site) close(t testing.TB) {
	t.Helper()
	if s.closed {
		return
	}
	s.closed = true
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.folder.Close(); err != nil {
		t.Error(err)
	}
	if err := cachetest.Check(s.folder.Dir()); err != nil {
		t.Error(err)
	}
}

// save writes a snapshot.
func (s *site) save(t testing.TB) {
	t.Helper()
	if err := s.Save(t.Context(), unbounded); err != nil {
		t.Fatal(err)
	}
}

func unbounded(context.Context, int64) error { return nil }

// must fails the test for any of the errors.
func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// contents is everything in an index that the files of blobs do not show.
type contents struct {
	MediaTypes map[digest.Digest]string
	Uses       map[digest.Digest]int64
	Members    map[records.RepoDigest]records.Member
	Tags       map[string]records.Tag
	Pending    map[string]records.Pending // nil if nothing is pending
	Next       map[string]digest.Digest   // nil if no tag is to name another image
	Pins       map[records.Pin]records.PinRecord
	Verdicts   []records.Verdict
	Referrers  map[records.RepoDigest]records.Referrers // of the digests of everything
}

func read(t testing.TB, ix *records.Index) contents {
	t.Helper()
	c := contents{
		MediaTypes: make(map[digest.Digest]string),
		Uses:       make(map[digest.Digest]int64),
		Members:    make(map[records.RepoDigest]records.Member),
		Tags:       make(map[string]records.Tag),
		Referrers:  make(map[records.RepoDigest]records.Referrers),
	}
	must(t,
		ix.EachManifest(func(d digest.Digest, rec records.Blob) error {
			c.MediaTypes[d] = rec.MediaType
			return nil
		}),
		ix.EachUse(func(d digest.Digest, at int64) { c.Uses[d] = at }),
		ix.EachMember(
			func(digest.Digest) bool { return true },
			func(of records.RepoDigest, rec records.Member) error {
				c.Members[of] = rec
				return nil
			}),
		ix.EachTag(func(repo records.Repository, tag string, rec records.Tag) error {
			c.Tags[repo.Image(tag)] = rec
			return nil
		}),
		ix.EachPending(func(repo records.Repository, tag string, rec records.Pending) error {
			if c.Pending == nil {
				c.Pending = make(map[string]records.Pending)
			}
			c.Pending[repo.Image(tag)] = rec
			return nil
		}),
		ix.EachNext(func(repo records.Repository, tag string, d digest.Digest) error {
			if c.Next == nil {
				c.Next = make(map[string]digest.Digest)
			}
			c.Next[repo.Image(tag)] = d
			return nil
		}),
	)
	var err error
	c.Pins, err = ix.Pins()
	must(t, err)
	c.Verdicts, err = ix.Verdicts()
	must(t, err)
	for _, repo := range []records.Repository{team, other, third} {
		for _, d := range []digest.Digest{layer, manifest} {
			if rec, err := ix.Referrers(repo, d); err == nil {
				c.Referrers[records.RepoDigest{Repository: repo, Digest: d}] = rec
			}
		}
	}
	return c
}

// everything returns each kind of record that a snapshot contains, with every field set.
func everything() contents {
	return contents{
		MediaTypes: map[digest.Digest]string{manifest: "application/vnd.oci.image.index.v1+json"},
		Uses: map[digest.Digest]int64{
			layer:                                  now.Unix(),
			digest.FromString("unknown otherwise"): 1,
		},
		Members: map[records.RepoDigest]records.Member{
			{Repository: team, Digest: layer}:    {Size: -1, Manifest: true},
			{Repository: other, Digest: layer}:   {Size: 1 << 40},
			{Repository: team, Digest: manifest}: {Size: 5, Manifest: true, Role: records.ManifestOnly, Proven: records.Proven},

			{Repository: other, Digest: manifest}: {Size: 5, Manifest: true, Role: records.ManifestAndBlob, Proven: records.ProvenElsewhere},
			{Repository: third, Digest: manifest}: {Size: 5, Proven: records.ByWord},
		},
		Tags: map[string]records.Tag{
			team.Image("v1"):  {Digest: manifest, Checked: now, Before: layer},
			other.Image("v2"): {Digest: layer, Checked: now, Local: true},
		},
		Pending: map[string]records.Pending{
			team.Image("v1"): {Gone: now, Moves: []records.Move{{Digest: layer, Seen: now}, {Digest: manifest, Seen: now}}},
		},
		Next: map[string]digest.Digest{other.Image("v3"): manifest},
		Pins: map[records.Pin]records.PinRecord{
			{Repository: team, Reference: "v1"}:               {Since: now, Bundle: "disk 1"},
			{Repository: other, Reference: manifest.String()}: {Since: now, AllPlatforms: true},
		},
		Verdicts: []records.Verdict{
			{Repository: team, Digest: manifest, Expiry: records.Expiry{Since: now, Rule: 3, Source: "ecr"}},
		},
		Referrers: map[records.RepoDigest]records.Referrers{
			{Repository: team, Digest: manifest}: {Checked: now, Manifests: []ocispec.Descriptor{{
				MediaType: ocispec.MediaTypeImageManifest, Digest: layer, Size: 7, ArtifactType: "a/signature",
				Annotations: map[string]string{"key": "value"},
			}}},
			{Repository: other, Digest: manifest}: {Checked: now, Unsupported: true},
		},
	}
}

// fill records everything.
func fill(t testing.TB, ix *records.Index) {
	t.Helper()
	all := everything()
	uses := make(map[digest.Digest]time.Time)
	for d, at := range all.Uses {
		uses[d] = time.Unix(at, 0)
	}
	must(t, ix.PutUses(uses), ix.ReplaceVerdicts(all.Verdicts))
	for d, mediaType := range all.MediaTypes {
		must(t, ix.PutBlob(d, records.Blob{Size: 5, Fetched: now, MediaType: mediaType}))
	}
	for of, rec := range all.Members {
		must(t, ix.PutMember(of.Repository, of.Digest, rec))
	}
	must(t,
		ix.PutTag(team, "v1", all.Tags[team.Image("v1")]),
		ix.PutTag(other, "v2", all.Tags[other.Image("v2")]),
		ix.PutPending(team, "v1", all.Pending[team.Image("v1")]),
		ix.PutNext(other, "v3", all.Next[other.Image("v3")]),
	)
	for of, rec := range all.Referrers {
		if kept, err := ix.PutReferrers(of.Repository, of.Digest, rec); !kept || err != nil {
			t.Fatal(kept, err)
		}
	}
	for pin, rec := range all.Pins {
		must(t, ix.PutPin(pin, rec))
	}
}
