package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/DeRuina/timberjack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// decode returns the lines of an audit, which are all valid.
func decode(t *testing.T, raw []byte) []line {
	t.Helper()
	var all []line
	for text := range strings.Lines(string(raw)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil || !strings.HasSuffix(text, "\n") {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, l)
	}
	return all
}

// openLog returns a log that ends with the test, and what it logs.
func openLog(t *testing.T, s Settings) (*Log, *bytes.Buffer) {
	t.Helper()
	said := new(bytes.Buffer)
	l, err := Open(s, noop.NewMeterProvider(), slog.New(slog.NewTextHandler(said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, said
}

func TestHostileTextsMakeValidLinesOfBoundedLength(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.json")
	l, _ := openLog(t, Settings{File: file})
	for _, text := range []string{strings.Repeat("\x00", 1<<20), "a\n{\"v\":1}", "\xff\xfe\"\\", strings.Repeat("é", 5000), "<script>", "\u2028"} {
		if err := l.Write(t.Context(), Entry{Client: text, Agent: text, Peer: text, User: text, Method: text, Upstream: text, Repository: text, Reference: text, Digest: text}); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(decode(t, raw)); n != 6 {
		t.Errorf("%d lines for 6 entries", n)
	}
	for text := range strings.Lines(string(raw)) {
		if len(text) > 16<<10 {
			t.Errorf("a line has %d bytes", len(text))
		}
	}
}

func TestOnlyProductsOfAUserAgentAreWritten(t *testing.T) {
	for agent, want := range map[string]string{
		"containerd/v2.1.0": "containerd/v2.1.0",
		"docker/28.0 go/go1.24 UpstreamClient(Docker-Client/28.0 \\(linux\\))": "docker/28.0 go/go1.24",
		"Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc":                                  "",
		"curl/8 token=hunter2":                                                 "curl/8",
		"x/ghp_0123456789abcdefghijklmnopqrstuvwxyz":                           "",
		strings.Repeat("a/1 ", 5000):                                           "a/1 a/1 a/1 a/1 a/1 a/1",
	} {
		if got := products(agent); got != want {
			t.Errorf("%.60q became %q, want %q", agent, got, want)
		}
	}
}

// fullDisk takes room bytes, and then nothing until it has more.
type fullDisk struct {
	bytes.Buffer
	room int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.room -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *fullDisk) Close() error { return nil }

func TestFullDiskDegradesAndRefusesOnlyWhatIsRequired(t *testing.T) {
	for _, required := range []bool{false, true} {
		disk := &fullDisk{room: 20}
		l, said := openLog(t, Settings{})
		l.use(Settings{File: "/audit", Required: required}, disk, nil)
		for range 3 {
			if err := l.Write(t.Context(), Entry{Reference: "v1"}); (err != nil) != required {
				t.Errorf("required %v: got %v", required, err)
			}
		}
		if err := l.Degraded(); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("required %v: degraded: %v", required, err)
		}
		disk.room = 1 << 20
		if err := l.Write(t.Context(), Entry{Reference: "v2"}); err != nil {
			t.Error(err)
		}
		if err := l.Degraded(); err != nil {
			t.Errorf("still degraded: %v", err)
		}
		// What was torn stands alone.
		_, after, _ := strings.Cut(disk.String(), "\n")
		if lines := decode(t, []byte(after)); len(lines) != 1 || lines[0].Reference != "v2" {
			t.Errorf("the file has %q", disk.String())
		}
		if n := strings.Count(said.String(), "\n"); n != 2 {
			t.Errorf("%d lines of log for two changes:\n%s", n, said)
		}
	}
}

// hungDisk takes nothing until it is released.
type hungDisk struct {
	bytes.Buffer
	released chan struct{}
}

func (d *hungDisk) Write(p []byte) (int, error) {
	<-d.released
	return d.Buffer.Write(p)
}

func (d *hungDisk) Close() error { return nil }

func TestHungDiskHoldsUpNoRequestForLong(t *testing.T) {
	for _, required := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			disk := &hungDisk{released: make(chan struct{})}
			l, said := openLog(t, Settings{})
			l.use(Settings{File: "/audit", Required: required}, disk, nil)
			began := time.Now()
			write := func(ctx context.Context, after time.Duration) {
				if err := l.Write(ctx, Entry{Reference: "v1"}); (err != nil) != required || time.Since(began) != after {
					t.Errorf("required %v: %v after %v, want it after %v", required, err, time.Since(began), after)
				}
			}
			var waiting sync.WaitGroup
			waiting.Go(func() { write(t.Context(), patience) })
			synctest.Wait()
			waiting.Go(func() { write(t.Context(), patience) })
			waiting.Go(func() {
				ctx, leave := context.WithTimeout(t.Context(), patience/2)
				defer leave()
				write(ctx, patience/2)
			})
			if err := l.Degraded(); err != nil {
				t.Errorf("degraded before a line took long: %v", err)
			}
			waiting.Wait()
			write(t.Context(), patience) // at once
			if err := l.Degraded(); !errors.Is(err, errStalled) {
				t.Errorf("degraded: %v", err)
			}
			close(disk.released)
			synctest.Wait()
			if err := l.Degraded(); err != nil {
				t.Errorf("still degraded: %v", err)
			}
			err := l.Write(t.Context(), Entry{Reference: "v2"})
			if lines := decode(t, disk.Bytes()); err != nil || len(lines) != 2 || lines[1].Reference != "v2" {
				t.Errorf("%v, the file has %q", err, disk)
			}
			if n := strings.Count(said.String(), "\n"); n != 2 {
				t.Errorf("%d lines of log for two changes:\n%s", n, said)
			}
		})
	}
}

func TestSettingsChangeAwayFromAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung, good := &hungDisk{released: make(chan struct{})}, &fullDisk{room: 1 << 20}
		l, _ := openLog(t, Settings{})
		l.use(Settings{File: "/hung", Required: true}, hung, nil)
		if err := l.Write(t.Context(), Entry{}); err == nil {
			t.Error("a line is said to be written to a disk that hangs")
		}
		l.use(Settings{File: "/good", Required: true}, good, nil)
		if err := l.Write(t.Context(), Entry{}); err != nil || l.Degraded() != nil || len(decode(t, good.Bytes())) != 1 {
			t.Errorf("%v, %v, the file has %q", err, l.Degraded(), good)
		}
		close(hung.released)
	})
}

func TestCloseDoesNotWaitForAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &hungDisk{released: make(chan struct{})}
		l, err := Open(Settings{}, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l.use(Settings{File: "/audit"}, disk, nil)
		if err := l.Write(t.Context(), Entry{}); err != nil {
			t.Error(err)
		}
		if err := l.Close(); !errors.Is(err, errStalled) {
			t.Errorf("got %v", err)
		}
		close(disk.released)
	})
}

func TestRotationLosesAndTearsNoLine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.json")
	l, _ := openLog(t, Settings{File: file, Required: true})
	const writers, each = 8, 200
	var running sync.WaitGroup
	for range writers {
		running.Go(func() {
			for range each {
				if err := l.Write(t.Context(), Entry{Reference: "v1"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Go(func() {
		for range maxOld - 1 {
			l.mu.Lock()
			rotated := l.out.to.(*timberjack.Logger)
			l.mu.Unlock()
			if err := rotated.Rotate(); err != nil {
				t.Error(err)
			}
		}
		l.Use(Settings{File: file, Required: true}) // as SIGHUP does
	})
	running.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		n += len(decode(t, raw))
	}
	if n != writers*each {
		t.Errorf("%d lines in %d files, want %d", n, len(entries), writers*each)
	}
}

func TestUseChangesTheFile(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "logs", "second")
	l, _ := openLog(t, Settings{File: first})
	for _, file := range []string{first, second, ""} {
		l.Use(Settings{File: file})
		if err := l.Write(t.Context(), Entry{}); err != nil {
			t.Fatal(err)
		}
	}
	if l.On() {
		t.Error("without a file it is on")
	}
	for _, file := range []string{first, second} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(decode(t, raw)); n != 1 {
			t.Errorf("%s has %d lines", file, n)
		}
	}
}

func TestFileThatCannotBeOpenedDegradesAtOnce(t *testing.T) {
	l, said := openLog(t, Settings{File: filepath.Join(t.TempDir(), "a", "\x00"), Required: true})
	if l.Degraded() == nil || !strings.Contains(said.String(), "the audit cannot be written") {
		t.Errorf("degraded: %v; logged %s", l.Degraded(), said)
	}
	if err := l.Write(t.Context(), Entry{}); err == nil {
		t.Error("a required line is said to be written")
	}
}
