package records_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
)

// tidying returns a Tidying for a cache in which these blobs are. It counts what is forgotten.
func tidying(forgotten *int, here ...digest.Digest) records.Tidying {
	is := make(map[digest.Digest]bool)
	for _, d := range here {
		is[d] = true
	}
	return records.Tidying{
		Here:         func(d digest.Digest) bool { return is[d] },
		Forgotten:    func(records.RepoDigest) { *forgotten++ },
		TagForgotten: func(records.Repository, string) { *forgotten++ },
	}
}

// tidy tidies an index until nothing is left to be removed.
func tidy(t testing.TB, ix *records.Index, here ...digest.Digest) (result records.Tidied, forgotten int) {
	t.Helper()
	for {
		var err error
		result, err = ix.Tidy(t.Context(), tidying(&forgotten, here...))
		must(t, err)
		if !result.More {
			return result, forgotten
		}
	}
}

// putIndex records an index of 12 platforms in a repository. It returns its digest and theirs.
func putIndex(t testing.TB, ix *records.Index, repo records.Repository, name string) (index digest.Digest, platforms []digest.Digest) {
	t.Helper()
	members := map[digest.Digest]records.Member{}
	for i := range 12 {
		d := digest.FromString(fmt.Sprint(name, " platform ", i))
		platforms = append(platforms, d)
		members[d] = records.Member{Size: 1, Manifest: true}
	}
	index = digest.FromString(name)
	members[index] = records.Member{Size: 100, Manifest: true}
	rec := records.Blob{Size: 100, Fetched: now, MediaType: "application/vnd.oci.image.index.v1+json", Children: platforms}
	must(t, ix.PutManifest(repo, index, rec, members))
	return index, platforms
}

func TestTidyRemovesAllRecordsOfWhatIsNotHere(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	must(t, ix.PutTouch(team, manifest, now))
	result, forgotten := tidy(t, ix)
	want := contents{
		MediaTypes: map[digest.Digest]string{}, Uses: map[digest.Digest]int64{}, Members: map[records.RepoDigest]records.Member{},
		Tags: map[string]records.Tag{}, Referrers: map[records.RepoDigest]records.Referrers{}, Pins: everything().Pins,
	}
	if diff := cmp.Diff(want, read(t, ix)); diff != "" {
		t.Error(diff)
	}
	if touches, err := ix.Touches(); err != nil || len(touches) > 0 {
		t.Errorf("touches: %v, %v", touches, err)
	}
	if all := everything(); forgotten != len(all.Members)+len(all.Tags) {
		t.Errorf("%d were forgotten: %+v", forgotten, result)
	}
}

func TestTidyKeepsWhatIsHere(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	want := everything()
	delete(want.Uses, digest.FromString("unknown otherwise"))
	if _, forgotten := tidy(t, ix, layer, manifest); forgotten > 0 {
		t.Errorf("%d were forgotten", forgotten)
	}
	if diff := cmp.Diff(want, read(t, ix)); diff != "" {
		t.Error(diff)
	}
}

// A platform that nobody has pulled may still be: its membership stays as long as an index that
// names it is here, in the repositories that have the index.
func TestTidyKeepsMembershipsOfWhatIsNamed(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	index, platforms := putIndex(t, ix, team, "index")
	gone, lost := putIndex(t, ix, team, "gone")
	must(t, ix.PutMember(other, platforms[0], records.Member{Size: 1, Manifest: true}))
	members := func() int { return len(read(t, ix).Members) }
	tidy(t, ix, index, platforms[3], gone)
	if n := members(); n != 26 {
		t.Errorf("%d members; both indexes and their platforms have some", n)
	}
	tidy(t, ix, index, platforms[3], lost[5])
	got := read(t, ix).Members
	if len(got) != 14 || got[records.RepoDigest{Repository: team, Digest: lost[5]}].Size != 1 {
		t.Errorf("%d members; those of the index that is here and of the platform that is", len(got))
	}
	tidy(t, ix)
	if n := members(); n > 0 {
		t.Errorf("%d members of what is not here", n)
	}
}

func TestTidyKeepsWhatIsWrittenMeanwhile(t *testing.T) {
	for _, kind := range []string{"a manifest", "another record"} { // the first look is at manifests
		t.Run("while it looks at "+kind, func(t *testing.T) {
			ix := open(t, t.TempDir()).Index
			fill(t, ix)
			if kind == "a manifest" {
				putIndex(t, ix, other, "index")
			}
			written := false
			var forgotten int
			tidying := tidying(&forgotten)
			tidying.Here = func(digest.Digest) bool {
				if !written {
					written = true
					wrote := make(chan struct{})
					go func() {
						defer close(wrote)
						must(t, ix.PutMember(team, layer, records.Member{Size: 9}))
						putIndex(t, ix, third, "written meanwhile")
					}()
					<-wrote
				}
				return false
			}
			result, err := ix.Tidy(t.Context(), tidying)
			must(t, err)
			got := read(t, ix).Members
			if got[records.RepoDigest{Repository: team, Digest: layer}].Size != 9 {
				t.Error("the membership that was written meanwhile was removed")
			}
			if len(got) != 1+13 || !written { // the new index has twelve platforms
				t.Errorf("%d memberships are left: %v", len(got), got)
			}
			if n := ix.Bytes() - result.Bytes; n < 1000 {
				t.Errorf("what was written meanwhile takes %d bytes", n)
			}
		})
	}
}

func TestTidyRemovesWhatIsPendingForATag(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	pending := records.Pending{Gone: now, Moves: []records.Move{{Digest: layer, Seen: now}}}
	must(t, ix.PutPending(other, "v2", pending))
	tidy(t, ix, layer)
	if diff := cmp.Diff(map[string]records.Pending{other.Image("v2"): pending}, read(t, ix).Pending); diff != "" {
		t.Errorf("what is pending for the tag that stays (-want +got):\n%s", diff)
	}
}

func TestTidyKeepsWhatComesMeanwhile(t *testing.T) {
	calls := 0
	here := func(digest.Digest) bool { calls++; return false }
	tidyWith := func() *records.Index {
		ix := open(t, t.TempDir()).Index
		fill(t, ix)
		var forgotten int
		tidying := tidying(&forgotten)
		tidying.Here = func(d digest.Digest) bool { return here(d) }
		_, err := ix.Tidy(t.Context(), tidying)
		must(t, err)
		return ix
	}
	tidyWith() // asks twice about each record, since it removes them all
	firstLook := calls / 2
	calls = 0
	here = func(d digest.Digest) bool { calls++; return d == manifest && calls > firstLook }
	got, want := read(t, tidyWith()), everything()
	if len(got.Tags) != 1 || len(got.MediaTypes) != 1 || len(got.Referrers) != len(want.Referrers) || len(got.Verdicts) != 1 {
		t.Errorf("records of a manifest that has come were removed: %+v", got)
	}
}

func TestTidyDoesNothingWhileTheIndexIsRebuilt(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	must(t, ix.SetRebuilding(true))
	tidy(t, ix)
	if diff := cmp.Diff(everything(), read(t, ix)); diff != "" {
		t.Error(diff)
	}
}

func TestTidyEndsWithItsContext(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var forgotten int
	if _, err := ix.Tidy(ctx, tidying(&forgotten)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if diff := cmp.Diff(everything(), read(t, ix)); diff != "" {
		t.Error(diff)
	}
}

// putLarge records a manifest that names this many blobs.
func putLarge(t testing.TB, ix *records.Index, name string, n int) digest.Digest {
	t.Helper()
	d := digest.FromString(name)
	members := map[digest.Digest]records.Member{d: {Size: 5, Manifest: true}}
	rec := records.Blob{Size: 5, Fetched: now, MediaType: "application/vnd.oci.image.manifest.v1+json"}
	for i := range n {
		child := digest.FromString(fmt.Sprint(name, i))
		rec.Children = append(rec.Children, child)
		members[child] = records.Member{Size: 1}
	}
	must(t, ix.PutManifest(team, d, rec, members))
	return d
}

func TestTidyTellsWhatRecordsTake(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	small, large := putLarge(t, ix, "small", 10), putLarge(t, ix, "large", 5000)
	result, _ := tidy(t, ix, small, large)
	if len(result.Large) != 2 || result.Large[0].Digest != large || result.Large[1].Digest != small {
		t.Fatalf("%+v", result.Large)
	}
	if sum := result.Large[0].Bytes + result.Large[1].Bytes; sum < result.Bytes*8/10 || sum > result.Bytes*12/10 || ix.Bytes() != result.Bytes {
		t.Errorf("the manifests take %d, and all records %d or %d", sum, result.Bytes, ix.Bytes())
	}
	must(t, ix.PutMember(other, layer, records.Member{}))
	if n := ix.Bytes() - result.Bytes; n < 100 || n > 300 {
		t.Errorf("a record of %d bytes", n)
	}
	if result, _ := tidy(t, ix); result.Bytes > 1000 {
		t.Errorf("what is left takes %d", result.Bytes)
	}
}

// usage is what the index takes on disk.
func usage(t *testing.T, s *site) int64 {
	t.Helper()
	n, err := disk.Usage(s.folder.Index())
	must(t, err)
	return n
}

func TestCompactGivesTheDiskBack(t *testing.T) {
	s := open(t, t.TempDir())
	if done, err := s.Compact(t.Context()); done || err != nil {
		t.Errorf("a new index was compacted: %t, %v", done, err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	stays := putLarge(t, s.Index, "stays", 100)
	for i := range 20 { // the record of each is a value of more than 512 KiB
		putLarge(t, s.Index, fmt.Sprint("bomb ", i), 10_000)
	}
	full := usage(t, s)
	tidy(t, s.Index, stays)
	if done, err := s.Compact(ended); done || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %t, %v", done, err)
	}
	done, err := s.Compact(t.Context())
	if now := usage(t, s); !done || err != nil || now > full/2 || now > 48<<20 {
		t.Errorf("it took %d, and takes %d: %t, %v", full, now, done, err)
	}
	values, err := filepath.Glob(filepath.Join(s.folder.Index(), "*.vlog"))
	must(t, err)
	var sum int64
	for _, path := range values {
		info, err := os.Stat(path)
		must(t, err)
		sum += info.Size()
	}
	if len(values) > 2 {
		t.Errorf("the value log has %d files of %d bytes", len(values), sum)
	}
	s.close(t)
	s = open(t, s.folder.Dir())
	if rec, err := s.Blob(stays); err != nil || len(rec.Children) != 100 {
		t.Errorf("%d children, %v", len(rec.Children), err)
	}
}
