package records_test

import (
	"errors"
	"io/fs"

	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

func TestRecordsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s.Index)
	blob := records.Blob{Size: 7, Fetched: now, MediaType: "m", Children: []digest.Digest{layer}, Subject: manifest}
	d := digest.FromString("another manifest")
	must(t,
		s.PutManifest(team, d, blob, map[digest.Digest]records.Member{layer: {Size: 3}, d: {Size: 7, Manifest: true}}),
		s.PutTouch(team, d, now),
		s.PutScrubPosition(records.ScrubPosition{After: d, Begun: now}),
	)
	want := everything()
	want.MediaTypes[d] = "m"
	want.Members[records.RepoDigest{Repository: team, Digest: layer}] = records.Member{Size: 3}
	want.Members[records.RepoDigest{Repository: team, Digest: d}] = records.Member{Size: 7, Manifest: true}
	s.close(t)

	s = open(t, dir)
	if diff := cmp.Diff(want, read(t, s.Index)); diff != "" {
		t.Error(diff)
	}
	if got, err := s.Blob(d); err != nil || !cmp.Equal(got, blob) {
		t.Errorf("the blob: %+v, %v", got, err)
	}
	if got, ok := s.Children(d); !ok || !cmp.Equal(got, blob.Children) {
		t.Errorf("its children: %v, %t", got, ok)
	}
	touches, err := s.Touches()
	if at := touches[records.RepoDigest{Repository: team, Digest: d}]; err != nil || len(touches) != 1 || !at.Equal(now) {
		t.Errorf("touches: %v, %v", touches, err)
	}
	if pos := s.ScrubPosition(); pos.After != d || !pos.Begun.Equal(now) || pos.Over() {
		t.Errorf("the scrub is at %+v", pos)
	}
	if s.InMemory() || s.Rebuilding() {
		t.Errorf("in memory: %t, rebuilding: %t", s.InMemory(), s.Rebuilding())
	}
}

func TestMissingRecordDoesNotExist(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	_, noBlob := ix.Blob(layer)
	_, noMember := ix.Member(team, layer)
	_, noTag := ix.Tag(team, "v1")
	_, noManifest := ix.Resolve(records.Pin{Repository: team, Reference: layer.String()})
	for name, err := range map[string]error{
		"a blob": noBlob, "a member": noMember, "a tag": noTag, "the manifest of a digest": noManifest,
		"a pin": ix.RemovePin(records.Pin{Repository: team, Reference: "v1"}),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ix.RemoveTag(team, "v1"); err != nil {
		t.Errorf("the removal of a missing tag: %v", err)
	}
	if _, ok := ix.Children(layer); ok {
		t.Error("an unknown blob has children")
	}
}

func TestPinIsResolvedByTagOrAsAManifest(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	must(t, ix.PutMember(team, digest.FromString("a layer"), records.Member{Size: 1}))
	for reference, want := range map[string]digest.Digest{
		"v1":                                  manifest,
		manifest.String():                     manifest,
		"v2":                                  "", // of another repository
		digest.FromString("a layer").String(): "",
	} {
		d, err := ix.Resolve(records.Pin{Repository: team, Reference: reference})
		if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && (err != nil || d != want) {
			t.Errorf("%s: %s, %v", reference, d, err)
		}
	}
}

func TestForgetRemovesAllRecordsOfABlob(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	must(t, ix.PutTouch(team, manifest, now), ix.PutUses(map[digest.Digest]time.Time{manifest: now}), ix.Forget(manifest))
	want := everything()
	delete(want.MediaTypes, manifest)
	for of := range want.Members {
		if of.Digest == manifest {
			delete(want.Members, of)
		}
	}
	want.Verdicts = nil
	clear(want.Referrers)
	if diff := cmp.Diff(want, read(t, ix)); diff != "" {
		t.Error(diff)
	}
	if touches, err := ix.Touches(); err != nil || len(touches) > 0 {
		t.Errorf("touches: %v, %v", touches, err)
	}
}

func TestDisownKeepsWhatOtherRepositoriesContain(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	must(t, ix.PutTouch(team, manifest, now), ix.Disown(team, []string{"v1"}, []digest.Digest{layer, manifest}))
	want := everything()
	delete(want.Tags, team.Image("v1"))
	want.Pending = nil
	delete(want.Members, records.RepoDigest{Repository: team, Digest: layer})
	delete(want.Members, records.RepoDigest{Repository: team, Digest: manifest})
	delete(want.Referrers, records.RepoDigest{Repository: team, Digest: manifest})
	want.Verdicts = nil
	if diff := cmp.Diff(want, read(t, ix)); diff != "" {
		t.Error(diff)
	}
	if touches, err := ix.Touches(); err != nil || len(touches) > 0 {
		t.Errorf("touches: %v, %v", touches, err)
	}
}

func TestRepositoriesOfABlobAreLimited(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	fill(t, ix)
	for limit, want := range map[int]int{0: 2, 1: 1, 2: 2, 9: 2} {
		if repos, err := ix.Repositories(layer, limit); err != nil || len(repos) != want {
			t.Errorf("limit %d: %v, %v", limit, repos, err)
		}
	}
	if repos, err := ix.Repositories(digest.FromString("unknown"), 1); err != nil || len(repos) > 0 {
		t.Errorf("an unknown blob: %v, %v", repos, err)
	}
}

func TestTagsOfARepositoryAreSorted(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	longer := records.Repository{Upstream: team.Upstream, Name: team.Name + "-2"}
	for _, tag := range []string{"v10", "latest", "v2"} {
		must(t, ix.PutTag(team, tag, records.Tag{Digest: layer, Checked: now}))
	}
	must(t, ix.PutTag(longer, "v3", records.Tag{Digest: layer, Checked: now}))
	if tags, err := ix.Tags(team); err != nil || !cmp.Equal(tags, []string{"latest", "v10", "v2"}) {
		t.Errorf("%v, %v", tags, err)
	}
}

func TestVerdictsAreReplaced(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	verdict := func(repo records.Repository, rule int) records.Verdict {
		return records.Verdict{Repository: repo, Digest: layer, Expiry: records.Expiry{Since: now, Rule: rule, Source: "ecr"}}
	}
	for _, want := range [][]records.Verdict{
		{verdict(other, 1), verdict(team, 1)},
		{verdict(other, 1), verdict(team, 2)},
		{verdict(team, 2)},
		nil,
	} {
		must(t, ix.ReplaceVerdicts(want))
		if got, err := ix.Verdicts(); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
}

func TestFailingDiskIsNotWrittenTo(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s.Index)
	s.health.Note(unix.EIO)
	if err := s.PutTag(team, "v3", records.Tag{Digest: layer, Checked: now}); !errors.Is(err, unix.EIO) {
		t.Errorf("written: %v", err)
	}
	if diff := cmp.Diff(everything(), read(t, s.Index)); diff != "" {
		t.Error(diff)
	}
	s.health.Recovered(s.health.Failures())
}

func TestIndexThatCannotBeOpenedIsInMemory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s.Index)
	s.save(t)
	s.close(t)
	s = openWith(t, dir, disk.Steps{Around: func(step disk.Step, take func() error) error {
		if step.Op == disk.OpCreate && step.Path == dir+"/index.opening" {
			return unix.EINVAL
		}
		return take()
	}}, discard)
	if !s.InMemory() {
		t.Error("the index is on disk")
	}
	if diff := cmp.Diff(everything(), read(t, s.Index)); diff != "" {
		t.Error(diff)
	}
}
