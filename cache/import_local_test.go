package cache

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// importOld imports an image as team:v1, unpinned, that was confirmed too long ago to be served without its upstream.
func importOld(t *testing.T, s *Store, img *image, local bool) {
	t.Helper()
	i := startImport(t, s)
	newParcel(img.Raw).put(t, i)
	err := i.Publish(t.Context(), ImportedImage{
		Repository: team, Tag: "v1", Digest: img.Digest, Confirmed: time.Now().Add(-2 * freshness.StaleIfError), Local: local,
	})
	if err != nil {
		t.Fatal(err)
	}
	i.Close()
}

// wantLocal checks that team:v1 is served without a question to its upstream, which has another image.
func wantLocal(t *testing.T, s *Store, img, other *image) {
	t.Helper()
	resolve(t, s, other.ask, Hit, img)
	if m, ok := s.TagHere(team, "v1"); !ok || m.Digest != img.Digest {
		t.Errorf("the tag is not served at once: %s", m.Digest)
	}
	m, err := s.AskTag(t.Context(), team, "v1", other.ask)
	if err != nil || m.Digest != img.Digest {
		t.Errorf("the tag was asked for: %s, %v", m.Digest, err)
	}
	if err := s.SetTag(team, "v1", img.Digest, time.Now()); err != nil {
		t.Error(err)
	}
	wantAsked(t, other)
	if shown := listed(t, s)[team.String()+":v1"]; !shown.Local || shown.Pinned {
		t.Errorf("%+v", shown)
	}
}

func TestLocalImageIsNotComparedWithItsUpstream(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, atSite)
	img, other := newImage("a"), newImage("b")
	importOld(t, s, img, true)
	s.saveSnapshot(t.Context())
	for _, lost := range []string{"", s.folder.Index(), ""} {
		wantLocal(t, s, img, other)
		closeStore(t, s)
		if lost != "" {
			if err := os.RemoveAll(lost); err != nil {
				t.Fatal(err)
			}
		}
		s = openStore(t, dir, atSite)
		loaded(t, s)
	}
	wantLocal(t, s, img, other)
}

func TestOrdinaryImportEndsALocalImage(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	img, other := newImage("a"), newImage("b")
	importOld(t, s, img, true)
	importOld(t, s, img, false)
	if shown := listed(t, s)[team.String()+":v1"]; shown.Local {
		t.Errorf("%+v", shown)
	}
	resolve(t, s, other.ask, Miss, other)
}

func TestRemovalEndsALocalImage(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	img, other := newImage("a"), newImage("b")
	importOld(t, s, img, true)
	if _, err := s.Remove(team, "v1"); err != nil {
		t.Fatal(err)
	}
	resolve(t, s, other.ask, Miss, other)
	if shown := listed(t, s)[team.String()+":v1"]; shown.Local {
		t.Errorf("%+v", shown)
	}
}

// A folder of the release before has tags that say nothing of this.
func TestTagOfAnEarlierReleaseIsNotLocal(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, atSite)
	img := newImage("a")
	resolve(t, s, img.ask, Miss, img)
	if err := s.index.PutTag(team, "v1", records.Tag{Digest: img.Digest, Checked: time.Now().Add(-2 * freshness.StaleIfError)}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, atSite)
	if _, _, err := s.Tag(t.Context(), team, "v1", dead); !errors.Is(err, filltest.ErrBroken) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the upstream was not asked: %v", err)
	}
}
