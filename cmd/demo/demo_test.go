package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testUnit is a twentieth of what the demo takes.
const testUnit = 50_000

// A mark is what a tour says of a step, with the first line of what it explains.
var mark = regexp.MustCompile(`(?m)^([✓✗]) \d  .*\n     (.*)$`)

// give gives a tour of small images. It must leave nothing behind, however it ends.
func give(ctx context.Context, t *testing.T, opts options, stdout, stderr io.Writer, args ...string) (status int) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	opts.unit = testUnit
	status = runWith(ctx, args, opts, stdout, stderr)
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return status
}

func TestEveryStepHolds(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := give(t.Context(), t, options{steps: steps()}, &stdout, &stderr); status != exitDone {
		t.Errorf("exit status %d, want %d", status, exitDone)
	}
	marks := mark.FindAllStringSubmatch(stdout.String(), -1)
	if len(marks) != len(steps()) {
		t.Errorf("%d steps were shown, want %d", len(marks), len(steps()))
	}
	for i, m := range marks {
		if m[1] != "✓" {
			t.Errorf("step %d: %s", i+1, m[2])
		}
	}
	if stderr.Len() > 0 {
		t.Errorf("on standard error: %s", &stderr)
	}
	if strings.Contains(stdout.String(), "\x1b") {
		t.Error("it drew on what is not a terminal")
	}
	if t.Failed() {
		t.Logf("the tour:\n%s", &stdout)
	}
}

// A sabotage breaks what a step promises. It may return what ends it.
type sabotage func(*testing.T, *stage) (mend func())

// warm pulls an image, so that a step that would fetch it finds it in the cache.
func warm(i func(*stage) image) sabotage {
	return func(t *testing.T, s *stage) func() {
		if _, err := s.pull(t.Context(), i(s), nil); err != nil {
			t.Error(err)
		}
		s.ecr.ResetStats()
		return nil
	}
}

// loseLayer takes the largest layer of the image that most steps need out of the cache.
func loseLayer(t *testing.T, s *stage) func() {
	hex := s.images.app.largest().Digest.Encoded()
	if err := os.Remove(filepath.Join(s.larder.cfg.Cache.Dir, "blobs", "sha256", hex[:2], hex)); err != nil {
		t.Error(err)
	}
	return nil
}

func inject(fault func(*stage) ecrtest.Fault) sabotage {
	return func(_ *testing.T, s *stage) func() { return s.ecr.Inject(fault(s)) }
}

func TestEveryStepNoticesABrokenPromise(t *testing.T) {
	broken := []struct {
		by   sabotage
		want string // what the step says of it
	}{
		{warm(func(s *stage) image { return s.images.app }), "the upstream sent 0 bytes of blobs, want "},
		{warm(func(s *stage) image { return s.images.api }), "the upstream sent 0 bytes of blobs, want "},
		{loseLayer, "bytes of blobs, want 0"},
		{inject(func(s *stage) ecrtest.Fault {
			layer := s.images.model.largest()
			return ecrtest.Fault{On: ecrtest.Storage, Digest: layer.Digest, FlipBit: new(layer.Size / 8 * 7)}
		}), "the range has other bytes than the layer"},
		{inject(func(s *stage) ecrtest.Fault {
			return ecrtest.Fault{On: ecrtest.Blob, Skip: 1, Times: 1, Notify: s.ecr.ExpireTokens}
		}), "2 new tokens were asked for, want 1"},
		{inject(func(s *stage) ecrtest.Fault {
			// The first fault that fits is the one that acts: the wrong bit stays away.
			return ecrtest.Fault{On: ecrtest.Storage, Digest: s.images.billing.largest().Digest, NoRange: true}
		}), "should have been cut off"},
		{loseLayer, "by digest: "},
	}
	all := steps()
	for i, step := range all {
		all[i].show = func(ctx context.Context, s *stage) (shown, error) {
			if mend := broken[i].by(t, s); mend != nil {
				defer mend()
			}
			return step.show(ctx, s)
		}
	}
	var stdout, stderr bytes.Buffer
	if status := give(t.Context(), t, options{steps: all}, &stdout, &stderr); status != exitFailed {
		t.Errorf("exit status %d, want %d", status, exitFailed)
	}
	marks := mark.FindAllStringSubmatch(stdout.String(), -1)
	if len(marks) != len(broken) {
		t.Fatalf("%d steps were shown, want %d:\n%s", len(marks), len(broken), &stdout)
	}
	for i, m := range marks {
		if m[1] != "✗" || !strings.Contains(m[2], broken[i].want) {
			t.Errorf("step %d: %s %s, want ✗ and %q", i+1, m[1], m[2], broken[i].want)
		}
	}
	if want := "7 of 7 steps"; !strings.Contains(stderr.String(), want) {
		t.Errorf("on standard error: %q, want %q in it", &stderr, want)
	}
}

func TestInterruptEndsTheTour(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held := step{"held", func(ctx context.Context, s *stage) (shown, error) {
		s.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Hang: true, Notify: cancel})
		return coldPull(ctx, s)
	}}
	var stdout, stderr bytes.Buffer
	if status := give(ctx, t, options{steps: []step{held}}, &stdout, &stderr); status != exitFailed {
		t.Errorf("exit status %d, want %d", status, exitFailed)
	}
	if mark.MatchString(stdout.String()) {
		t.Errorf("the step was shown:\n%s", &stdout)
	}
	if want := "interrupted"; !strings.Contains(stderr.String(), want) {
		t.Errorf("on standard error: %q, want %q in it", &stderr, want)
	}
}

func TestTourThatCannotBeginFails(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), nil, &stdout, &stderr); status != exitFailed {
		t.Errorf("exit status %d, want %d", status, exitFailed)
	}
	if want := "no such file or directory"; !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
		t.Errorf("on standard error: %q, want %q in it; on standard output: %q, want nothing", &stderr, want, &stdout)
	}
}

// A ctrlC ends a context when a text is written to it.
type ctrlC struct {
	bytes.Buffer
	at     string
	cancel func()
}

func (c *ctrlC) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.at)) {
		c.cancel()
	}
	return c.Buffer.Write(p)
}

func TestKeepEndsAtAnInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout := &ctrlC{at: "Ctrl-C", cancel: cancel}
	if status := give(ctx, t, options{steps: steps()[:1]}, stdout, io.Discard, "--keep"); status != exitDone {
		t.Errorf("exit status %d, want %d", status, exitDone)
	}
	for _, command := range []string{"ctr images pull --hosts-dir ", "podman pull ", "skopeo inspect ", "curl -s"} {
		if !strings.Contains(stdout.String(), "\n    "+command) {
			t.Errorf("there is no line that begins with %q", command)
		}
	}
	if t.Failed() {
		t.Logf("the tour:\n%s", stdout)
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"--help"}, exitDone, "--keep", ""},
		{[]string{"--kepe"}, exitUsage, "", "unknown flag --kepe"},
		{[]string{"more"}, exitUsage, "", "unexpected argument more"},
	} {
		t.Run(test.args[0], func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if status := run(t.Context(), test.args, &stdout, &stderr); status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			if !strings.Contains(stdout.String(), test.stdout) || (stdout.Len() > 0) != (test.stdout != "") {
				t.Errorf("on standard output: %q", &stdout)
			}
			if !strings.Contains(stderr.String(), test.stderr) || (stderr.Len() > 0) != (test.stderr != "") {
				t.Errorf("on standard error: %q", &stderr)
			}
		})
	}
}
