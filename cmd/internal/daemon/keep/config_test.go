package keep_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring/bringtest"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

func TestListIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := filepath.Join(t.TempDir(), "list")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g := group()
		g.File = list
		r := newRig(t, cache.Options{}, g)
		one, two := r.AddImage("v1", "a", 1000, "linux/amd64"), r.AddImage("v2", "b", 1000, "linux/amd64")
		write(bringtest.Name("v1").String() + " # one\n")
		r.run()
		defer r.end()
		r.pass(time.Minute)
		r.want("v1", keep.Whole, one.Root.Digest)
		write("not an image")
		r.pass(time.Minute)
		r.want("v1", keep.Whole, one.Root.Digest)
		write(bringtest.Name("v2").String())
		r.pass(time.Minute)
		r.want("v2", keep.Whole, two.Root.Digest)
		if r.isPinned("v1") || !r.isPinned("v2") || r.keeper.ServesRecorded(bringtest.Repo(), "v1") {
			t.Error("what is pinned is not what the list has now")
		}
	})
}

func TestDigestIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{})
		image := r.AddImage("v1", "a", 1000, "linux/amd64")
		r.groups = []config.Keep{group(image.Root.Digest.String())}
		r.end = func() {}
		r.restart()
		defer func() { r.end() }()
		r.want(image.Root.Digest.String(), keep.Whole, image.Root.Digest)
		if !r.isPinned(image.Root.Digest.String()) {
			t.Error("it is not pinned")
		}
	})
}

func TestDigestStaysPinnedAfterARestartWithoutItsUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{MaxSize: index + 5<<20})
		image := r.AddImage("v1", "a", 2<<20, "linux/amd64")
		r.groups = []config.Keep{group(image.Root.Digest.String())}
		r.end = func() {}
		r.restart()
		defer func() { r.end() }()
		r.want(image.Root.Digest.String(), keep.Whole, image.Root.Digest)
		r.sea.Store(true)
		r.restart()
		if !r.isPinned(image.Root.Digest.String()) {
			t.Fatal("it is not pinned")
		}
		for _, tag := range []string{"v2", "v3", "v4", "v5"} { // clients pull more than fits
			r.AddImage(tag, tag, 2<<20, "linux/amd64")
			if _, err := r.Pull(tag, 0); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Minute)
		}
		r.SetDown(true)
		r.want(image.Root.Digest.String(), keep.Whole, image.Root.Digest)
	})
}

func TestImageThatIsKeptByTagAndByDigestStaysPinnedForEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{})
		r.AddImage("v1", "a", 1<<20, "linux/amd64")
		second := r.AddImage("v2", "b", 1<<20, "linux/amd64").Root.Digest
		byDigest := group(second.String())
		byDigest.Every = 24 * time.Hour // it is pinned once
		r.groups = []config.Keep{group("v1"), byDigest}
		r.end = func() {}
		r.restart()
		defer func() { r.end() }()
		r.Tag("v1", second)
		r.pass(2 * time.Hour) // the tag names it, and is pinned by its name
		r.want("v1", keep.Whole, second)
		if !r.isPinned(second.String()) {
			t.Error("the digest is not pinned since a tag names it")
		}

		third := r.AddImage("v1", "c", 1<<20, "linux/amd64").Root.Digest
		r.SetBudget(500_000)
		r.pass(2 * time.Hour)
		r.want("v1", keep.Old, second)
		r.keeper.Set([]config.Keep{group("v1", third.String()), byDigest})
		synctest.Wait()
		r.keeper.Set([]config.Keep{group("v1"), byDigest})
		synctest.Wait()
		if !r.isPinned(third.String()) {
			t.Error("the half fetched image of the tag is not pinned since it is not kept by its digest")
		}
		r.SetBudget(-1)
		r.pass(2 * time.Hour)
		r.want("v1", keep.Whole, third)
		if r.isPinned(third.String()) || !r.isPinned(second.String()) {
			t.Error("other digests are pinned than those that are kept")
		}
	})
}

func TestConfigurationMayChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cache.Options{})
		one, two := r.AddImage("v1", "a", 1000, "linux/amd64"), r.AddImage("v2", "b", 1000, "linux/amd64")
		r.run()
		defer r.end()
		r.keeper.Set([]config.Keep{group("v1", "v2")})
		synctest.Wait()
		r.want("v1", keep.Whole, one.Root.Digest)
		r.want("v2", keep.Whole, two.Root.Digest)

		_, before, _ := r.Counts()
		r.keeper.Set([]config.Keep{group("v1", "v3")})
		synctest.Wait()
		r.want("v1", keep.Whole, one.Root.Digest)
		r.want("v3", keep.Missing, "")
		if r.isPinned("v2") {
			t.Error("an image that is not kept any more is pinned")
		}
		if _, asked, _ := r.Counts(); asked > before+1 {
			t.Errorf("%d questions, though only one image is new", asked-before)
		}

		other := group("v1")
		other.Every = 2 * time.Hour
		r.sea.Store(true)
		r.keeper.Set([]config.Keep{other})
		synctest.Wait()
		r.want("v1", keep.Whole, one.Root.Digest)
		if !r.isPinned("v1") {
			t.Error("an image that is kept in another way is not pinned")
		}
	})
}

func TestSignaturesOfKeptRepositoriesArePinned(t *testing.T) {
	g := group("v1")
	g.Referrers = true
	k, err := keep.New([]config.Keep{g, {Images: []name.Image{{Host: "registry.test", Repository: "other", Tag: "v1"}}}}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]bool{
		"registry.test/team/app:v1":            true,
		"registry.test/team/app:v2":            false,
		"registry.test/team/app:sha256-00.sig": true,
		"registry.test/other:sha256-00.sig":    false,
		"registry.test/other:v1":               true,
	} {
		if k.Pins(image) != want {
			t.Errorf("%s: pinned is %t", image, !want)
		}
	}
}
