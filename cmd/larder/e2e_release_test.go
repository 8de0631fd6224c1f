package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// releaseBefore is a commit of the release before this one, whose folders are taken over, and which must be able to go on
// with them afterwards.
const releaseBefore = "f90af4c372c92ad3227f2a252882d69ec074312c"

// A folder with a pin, a tag and a lifecycle rule goes from the release before to this one, back, and forward again.
func TestFolderGoesToANewLarderAndBack(t *testing.T) {
	t.Parallel()
	before := buildCommit(t, releaseBefore)
	ecr := startFakeECR(t)
	s := newStack(t, fmt.Sprintf(`default_upstream: %s
upstreams:
  - host: %s
    endpoint: %s
    ecr: {api_endpoint: %s}
lifecycle:
  - match: "*/*"
    rules:
      - {rulePriority: 1, selection: {tagStatus: any, countType: imageCountMoreThan, countNumber: 1}, action: {type: expire}}
`, ecr.Host, ecr.Host, ecr.Endpoint, ecr.Endpoint))
	s.ecr = ecr
	now := s.binary
	image := ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 2 << 20}})
	other := ecr.add(t, plainImage{Repository: "edge/app", Tag: "2", Seed: 2, Layers: []int64{1 << 10, 1 << 20}})

	s.binary = before
	s.startLarder(t)
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	requirePull(t, s.newPullers(t, 1), "edge/app", "2", other.Root.Digest)
	pinned := ecr.Host + "/edge/app:1"
	output(t, environ(t), s.binary, "pin", "--config", s.config, pinned)
	ecr.kill()
	for i, binary := range []string{before, now, before, now} {
		if err := s.larder.stop(syscall.SIGTERM); err != nil {
			t.Fatalf("start %d: the Larder before it was told to end: %v", i, err)
		}
		s.binary = binary
		s.startLarder(t)
		for _, reference := range []string{"1", image.Root.Digest.String()} {
			requirePull(t, s.newPullers(t, 1), "edge/app", reference, image.Root.Digest)
		}
		requirePull(t, s.newPullers(t, 1), "edge/app", "2", other.Root.Digest)
		if pins := output(t, environ(t), s.binary, "ls", "--json", "--config", s.config, pinned); !strings.Contains(strings.ReplaceAll(pins, " ", ""), `"pinned":true`) {
			t.Errorf("start %d: the image is not pinned:\n%s", i, pins)
		}
	}
}

// The half of an image that keep was fetching goes to the release before, which does not know of it, and back, with no
// upstream. Then the rest comes.
func TestHalfFetchedImageGoesToTheReleaseBeforeAndBack(t *testing.T) {
	before := buildCommit(t, releaseBefore)
	ecr := startFakeECR(t)
	s := newStack(t, fmt.Sprintf("default_upstream: %s\nupstreams: [{host: %s, endpoint: %q, ecr: {api_endpoint: %q}}]\n", ecr.Host, ecr.Host, ecr.Endpoint, ecr.Endpoint))
	s.ecr = ecr
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	now, withoutKeep := s.binary, string(raw)
	name := ecr.Host + "/edge/app:1"
	withKeep := withoutKeep + "keep: [{images: [" + name + "], platforms: [linux/amd64]}]\n"
	image := ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 2 << 20}})

	s.binary = before
	s.startLarder(t)
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	next := ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 2, Layers: []int64{1 << 10, 3 << 20}})
	const half = 1 << 20
	ecr.hold(t, half)
	for i, binary := range []string{now, before, now, before, now} {
		if err := s.larder.stop(syscall.SIGTERM); err != nil {
			t.Fatalf("start %d: the Larder before it was told to end: %v", i, err)
		}
		s.binary = binary
		writeFile(t, s.config, map[string]string{now: withKeep, before: withoutKeep}[binary])
		s.startLarder(t)
		if i == 0 {
			s.larder.await(t, func(context.Context) bool { return len(s.partials(t)) == 1 && s.journaled(t, half) })
			ecr.kill()
		}
		requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
		pinned := ecr.Host + "/edge/app@" + next.Root.Digest.String()
		pins := output(t, environ(t), s.binary, "ls", "--json", "--config", s.config, pinned)
		if isPinned := strings.Contains(strings.ReplaceAll(pins, " ", ""), `"pinned":true`); isPinned != (binary == now) {
			t.Errorf("start %d: pinned is %t:\n%s", i, isPinned, pins)
		}
		if !s.journaled(t, half) {
			t.Errorf("start %d: the half of the layer is gone", i)
		}
	}
}

// journaled reports whether one partial download has so many bytes.
func (s *stack) journaled(t *testing.T, bytes int) bool {
	t.Helper()
	for _, file := range s.partials(t) {
		if raw, err := os.ReadFile(file + ".journal"); err == nil && strings.Contains(string(raw), fmt.Sprintf("\n0 %d ", bytes)) {
			return true
		}
	}
	return false
}

// buildCommit builds the binary of an earlier commit. Without git, or where the commit is not in the history, as in a
// shallow clone or an archive of the source, the test is skipped.
func buildCommit(t *testing.T, commit string) string {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed: the release before cannot be built")
	}
	if _, err := tryRun(t, environ(t), git, "-C", repository, "cat-file", "-e", commit+"^{commit}"); err != nil {
		t.Skipf("the release before cannot be built: %s is not in the history of this source", commit)
	}
	source := t.TempDir()
	archive := exec.CommandContext(t.Context(), git, "-C", repository, "archive", "--format=tar", commit)
	files, err := archive.Output()
	if err != nil {
		t.Fatalf("git archive %s: %v", commit, err)
	}
	untar := exec.CommandContext(t.Context(), "tar", "-x", "-C", source)
	untar.Stdin = bytes.NewReader(files)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	binary := filepath.Join(t.TempDir(), "larder-before")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./cmd/larder")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", commit, err, out)
	}
	return binary
}
