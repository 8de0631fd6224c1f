package records_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/records"
)

// listOf is a list that takes about n bytes.
func listOf(n int) records.Referrers {
	return records.Referrers{Checked: now, Manifests: []ocispec.Descriptor{{
		MediaType: ocispec.MediaTypeImageManifest, Digest: layer, Annotations: map[string]string{"a": strings.Repeat("a", n)},
	}}}
}

func wantKept(t *testing.T, ix *records.Index, repo records.Repository, subject digest.Digest, rec records.Referrers, want bool) {
	t.Helper()
	kept, err := ix.PutReferrers(repo, subject, rec)
	_, missing := ix.Referrers(repo, subject)
	if kept != want || err != nil || errors.Is(missing, fs.ErrNotExist) == want {
		t.Errorf("kept %v, %v; then %v; want %v", kept, err, missing, want)
	}
}

func TestReferrersThatDoNotFitIntoASnapshotAreNotRecorded(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	wantKept(t, ix, team, manifest, listOf(60_000), true)
	wantKept(t, ix, team, manifest, listOf(70_000), false)
}

func TestUpstreamCannotFillTheIndexWithReferrers(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	subject := func(i int) digest.Digest { return digest.FromString(fmt.Sprint(i)) }
	raw, err := json.Marshal(listOf(60_000))
	must(t, err)
	most := 8 << 20 / len(raw)
	for i := range most {
		wantKept(t, ix, team, subject(i), listOf(60_000), true)
	}
	wantKept(t, ix, team, subject(most), listOf(60_000), false)
	wantKept(t, ix, team, subject(0), listOf(60_000), true) // in place of its earlier list
	wantKept(t, ix, team, subject(most), listOf(3_000), true)
	wantKept(t, ix, other, subject(0), listOf(60_000), true)
}

func TestReferrersAreRemovedOneByOne(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	must(t, ix.RemoveReferrers(team, manifest), ix.RemoveReferrers(team, layer))
	want := everything().Referrers
	delete(want, records.RepoDigest{Repository: team, Digest: manifest})
	if diff := cmp.Diff(want, read(t, ix).Referrers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestManifestsAreFoundByTheirSubject(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ix := s.Index
	signature := func(i int) digest.Digest { return digest.FromString(fmt.Sprint("signature ", i)) }
	rec := records.Blob{Size: 5, Fetched: now, MediaType: ocispec.MediaTypeImageManifest, Subject: manifest}
	want := func(digests ...digest.Digest) {
		t.Helper()
		found := make(map[digest.Digest]bool)
		got, err := ix.ReferringTo(manifest)
		for _, d := range got {
			found[d] = true
		}
		wanted := make(map[digest.Digest]bool)
		for _, d := range digests {
			wanted[d] = true
		}
		if diff := cmp.Diff(wanted, found); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	must(t, ix.PutManifest(team, signature(1), rec, nil)) // before the first question
	want(signature(1))
	must(t, ix.PutManifest(team, signature(2), rec, nil), ix.PutBlob(signature(3), rec), ix.PutBlob(layer, records.Blob{Size: 1}))
	want(signature(1), signature(2), signature(3))
	must(t, ix.RemoveBlob(signature(1)), ix.Forget(signature(2)))
	want(signature(3))
	must(t, ix.Forget(signature(3)))
	want()
	must(t, ix.PutManifest(team, signature(2), rec, nil))
	want(signature(2))
	s.close(t)
	ix = open(t, dir).Index
	want(signature(2))
}
