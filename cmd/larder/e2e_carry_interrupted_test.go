package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// An image that an import was interrupted in is not visible, and the same import goes on: it writes no complete blob
// again, and at most one blob is begun and not complete.
func TestInterruptedImportLeavesNoHalfImageAndGoesOn(t *testing.T) {
	t.Parallel()
	rounds := killRounds(15, 50)
	s := startStack(t)
	var images []*ecrtest.Added
	args := []string{"export", "--config", s.config, "-o", filepath.Join(t.TempDir(), "bundle.tar")}
	bundle := args[4]
	for i := range 4 {
		tag := fmt.Sprint(i)
		images = append(images, s.ecr.add(t, plainImage{Repository: "edge/app", Tag: tag, Seed: uint64(i), Layers: []int64{1 << 10, 2 << 20, 6 << 20}}))
		requirePull(t, s.newPullers(t, 1), "edge/app", tag, images[i].Root.Digest)
		args = append(args, s.ecr.Host+"/edge/app:"+tag)
	}
	s.restartLarder(t) // so that all of it is in the cache
	output(t, environ(t), s.binary, args...)
	site := newSite(t, s.ecr.Host)
	site.startLarder(t)
	for round := range rounds {
		before := site.blobStates(t)
		site.interruptImport(t, bundle, round, rounds)
		site.requireNoHalfImage(t, images)
		site.requireUnchanged(t, before)
		if n := len(site.partials(t)); n > 1 {
			t.Errorf("%d blobs were begun and are not complete", n)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	before := site.blobStates(t)
	if got := site.imported(t, bundle); len(got) != len(images) {
		t.Errorf("in the end: %v", got)
	}
	site.requireUnchanged(t, before)
	if len(before) == 0 {
		t.Error("no round has left a blob")
	}
	s.ecr.kill()
	for i, image := range images {
		requirePull(t, site.newPullers(t, 1), "edge/app", fmt.Sprint(i), image.Root.Digest)
	}
	site.stopAndCheck(t)
}

// blobStates returns what tells a file of a blob that was written again from one that was not, by the paths.
func (s *stack) blobStates(t *testing.T) map[string]os.FileInfo {
	t.Helper()
	states := make(map[string]os.FileInfo)
	for _, file := range s.blobFiles(t) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		states[file] = info
	}
	return states
}

// requireUnchanged fails the test if blobs are gone or were written again.
func (s *stack) requireUnchanged(t *testing.T, before map[string]os.FileInfo) {
	t.Helper()
	now := s.blobStates(t)
	for file, info := range before {
		after, ok := now[file]
		if !ok || !os.SameFile(info, after) || !info.ModTime().Equal(after.ModTime()) {
			t.Errorf("complete blob %s is gone or was written again", filepath.Base(file))
		}
	}
}

// partials returns the data files of blobs that are not complete.
func (s *stack) partials(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.cache, "partial", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(file string) bool { return strings.HasSuffix(file, ".journal") })
}

// interruptImport imports so much of a bundle. Then, by turns, the import is killed, the daemon is killed, and the bundle
// ends there.
func (s *stack) interruptImport(t *testing.T, bundle string, round, rounds int) {
	t.Helper()
	importing := s.beginImport(t, bundle, float64(2*round+1)/float64(2*rounds))
	switch round % 3 {
	case 0:
		_ = importing.stop(syscall.SIGKILL)
	case 1:
		_ = s.larder.stop(syscall.SIGKILL)
		_ = importing.stdin.Close()
		<-importing.exited
		s.startLarder(t)
	case 2:
		_ = importing.stdin.Close()
		<-importing.exited
		if importing.cmd.ProcessState.Success() {
			t.Error("a truncated bundle was imported without an error")
		}
	}
}

// partlyImported is an import that waits for the rest of its bundle.
type partlyImported struct {
	*process
	stdin io.WriteCloser
	rest  io.Reader
}

// beginImport begins an import, and gives it a part of a bundle.
func (s *stack) beginImport(t *testing.T, bundle string, part float64) partlyImported {
	t.Helper()
	content, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.command(t, "import", "-")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	importing := partlyImported{start(t, cmd), stdin, bytes.NewReader(content)}
	if _, err := io.CopyN(stdin, importing.rest, int64(part*float64(len(content)))); err != nil {
		t.Errorf("the import ended early: %v", err)
	}
	return importing
}

// requireNoHalfImage fails the test if an image is visible of which anything is missing.
func (s *stack) requireNoHalfImage(t *testing.T, images []*ecrtest.Added) {
	t.Helper()
	list := output(t, environ(t), s.binary, "ls", "--config", s.config)
	if strings.Contains(list, "incomplete") {
		t.Errorf("after a kill:\n%s", list)
	}
	for i, image := range images {
		if !strings.Contains(list, "edge/app:"+fmt.Sprint(i)) {
			requireRefusal(t, "http://"+s.listen+"/v2/"+s.ecr.Host+"/edge/app/manifests/"+fmt.Sprint(i), "MANIFEST_UNKNOWN")
			continue
		}
		requirePull(t, s.newPullers(t, 1), "edge/app", fmt.Sprint(i), image.Root.Digest)
	}
}

// A disk that is full fails the import, and the same command goes on once there is space.
func TestImportGoesOnAfterAFullDisk(t *testing.T) {
	t.Parallel()
	disk := deploytest.Tmpfs(t, "size=96m")
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{8 << 20, 9 << 20, 10 << 20}})
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	s.restartLarder(t) // so that all of it is in the cache
	bundle := filepath.Join(t.TempDir(), "bundle.tar")
	output(t, environ(t), s.binary, "export", "--config", s.config, "-o", bundle, s.ecr.Host+"/edge/app:1")

	// The exporter's disk fills up as well.
	small := filepath.Join(disk, "bundle.tar")
	hog := filepath.Join(disk, "hog")
	writeFile(t, hog, strings.Repeat("x", 80<<20))
	if _, err := tryRun(t, environ(t), s.binary, "export", "--config", s.config, "-o", small, s.ecr.Host+"/edge/app:1"); err == nil ||
		!strings.Contains(err.Error(), "no space left") {
		t.Errorf("export to a full disk: %v", err)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	if _, err := tryRun(t, environ(t), s.binary, "export", "--config", s.config, "-o", small, s.ecr.image()); err == nil ||
		!strings.Contains(err.Error(), "is what is left of another export") {
		t.Errorf("another export to the same file: %v", err)
	}
	kept, err := os.Stat(small + ".partial")
	if err != nil || kept.Size() < 1<<20 {
		t.Errorf("nothing was kept: %v", err)
	}
	// What it exports is evicted, and the tag moves. Nothing is planned anew.
	output(t, environ(t), s.binary, "rm", "--config", s.config, s.ecr.Host+"/edge/app:1")
	if n := len(s.blobFiles(t)); n > 0 {
		t.Errorf("%d blobs are left in the cache", n)
	}
	s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 2, Layers: []int64{1 << 10}})
	again := s.command(t, "export", "-o", small, s.ecr.Host+"/edge/app:1")
	if said, err := again.CombinedOutput(); err != nil || !strings.Contains(string(said), "going on with an export that was interrupted") {
		t.Errorf("the same export again: %v: %s", err, said)
	}
	requireSameFile(t, bundle, small)
	if left, err := filepath.Glob(small + ".*"); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.Remove(small); err != nil {
		t.Fatal(err)
	}

	site := newStack(t, "default_upstream: "+s.ecr.Host+"\nupstreams: [{host: "+s.ecr.Host+", endpoint: \"http://127.0.0.1:9\", offline: true}]\n")
	site.ecr = &fakeECR{}
	site.ecr.Host = s.ecr.Host
	site.moveCache(t, filepath.Join(disk, "cache"))
	site.startLarder(t)
	fillDisk(t, hog)
	_, err = tryRun(t, environ(t), site.binary, "import", "--config", site.config, bundle)
	if err == nil {
		t.Error("an import to a full disk succeeds")
	}
	t.Log(err)
	if list := output(t, environ(t), s.binary, "ls", "--config", site.config); strings.Contains(list, "edge") {
		t.Errorf("after the refusal:\n%s", list)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}

	// It fills up after two thirds.
	importing := site.beginImport(t, bundle, 0.7)
	site.larder.await(t, func(context.Context) bool { return len(site.blobFiles(t)) > 0 })
	fillDisk(t, hog)
	_, _ = io.Copy(importing.stdin, importing.rest) // the import may end before it has read everything
	_ = importing.stdin.Close()
	<-importing.exited
	if importing.cmd.ProcessState.Success() {
		t.Error("an import succeeds on a disk that fills up")
	}
	before := site.blobStates(t)
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	if got := site.imported(t, bundle); len(got) != 1 {
		t.Errorf("%v", got)
	}
	site.requireUnchanged(t, before)
	requirePull(t, site.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	site.stopAndCheck(t)
}
