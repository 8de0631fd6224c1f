package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestMirrorWatchRepairsTheFilesUntilItIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "docker.io", "hosts.toml")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan int)
		go func() {
			ended <- run(ctx, []string{
				"mirror", "--watch", "--every", "10s", "--containerd-dir", dir, "--registry", "docker.io", "--containerd-version", "2.2",
			}, nil, nil, io.Discard, io.Discard)
		}()
		synctest.Wait()
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, spoil := range []func() error{
			func() error { return os.RemoveAll(filepath.Dir(path)) },
			func() error { return os.WriteFile(path, want[:len(want)/2], 0o600) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			<-time.After(15 * time.Second)
			if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
				t.Errorf("the file was spoilt and is now %q, %v", got, err)
			}
		}
		stop()
		if status := <-ended; status != exitDone {
			t.Errorf("status %d, want %d", status, exitDone)
		}
	})
}

func TestMirrorIsRemovedAtTheEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
	}{
		{"one that only waits", nil},
		{"one that watches", []string{"--watch", "--registry", "docker.io", "--containerd-version", "2.2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "docker.io", "hosts.toml")
				larder := func(ctx context.Context, args ...string) int {
					return run(ctx, append([]string{"mirror", "--containerd-dir", dir}, args...), nil, nil, io.Discard, io.Discard)
				}
				if status := larder(t.Context(), "--registry", "docker.io", "--containerd-version", "2.2"); status != exitDone {
					t.Fatalf("status %d, want %d", status, exitDone)
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan int)
				go func() { ended <- larder(ctx, append(test.args, "--remove-at-end")...) }()
				synctest.Wait()
				if _, err := os.Stat(path); err != nil {
					t.Errorf("before it was stopped: %v", err)
				}
				stop()
				if status := <-ended; status != exitDone {
					t.Errorf("status %d, want %d", status, exitDone)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("after it was stopped there is still %v, %v", left, err)
				}
			})
		})
	}
}
