package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// Another process fills the disk to the last byte, and frees it, again and again.
func TestDiskThatFillsUpFailsNoPull(t *testing.T) {
	t.Parallel()
	disk := deploytest.Tmpfs(t, "size=256m")
	s := startStack(t)
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	s.moveCache(t, filepath.Join(disk, "cache"))
	s.startLarder(t)
	images := make([]*ecrtest.Added, 60) // more than the disk holds
	for i := range images {
		images[i] = s.ecr.add(t, plainImage{
			Repository: "disk/app", Tag: fmt.Sprint(i), Seed: uint64(i), Layers: []int64{4 << 10, 900 << 10, 3 << 20},
		})
	}

	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	pulls := make(chan struct{})
	for n, p := range s.newPullers(t, 6) {
		random := rand.New(rand.NewPCG(1, uint64(n)))
		clients.Go(func() {
			defer p.client.CloseIdleConnections()
			for {
				i := random.IntN(len(images))
				got, err := p.pull(t.Context(), "disk/app", fmt.Sprint(i))
				if err != nil || got != images[i].Root.Digest {
					t.Errorf("image %d: got %s, %v", i, got, err)
				}
				select {
				case pulls <- struct{}{}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	await := func(n int) {
		for range n {
			<-pulls
		}
	}
	hog := filepath.Join(disk, "hog")
	for range 5 {
		await(20)
		fillDisk(t, hog)
		await(20)
		if err := os.Remove(hog); err != nil {
			t.Error(err)
		}
	}
	stop()
	clients.Wait()
	if !s.larder.runs() {
		t.Fatal("Larder ended")
	}

	s.requireKeeps(t)
	s.stopAndCheck(t)
}

// fillDisk writes to a file until there is no byte left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	hog, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer hog.Close()
	zeros := make([]byte, 64<<10)
	for size := len(zeros); size > 0; {
		if _, err := hog.Write(zeros[:size]); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Error(err)
			return
		}
	}
}

// requireKeeps waits until an image that was not cached is served without the upstream.
func (s *stack) requireKeeps(t *testing.T) {
	t.Helper()
	p := s.newPuller(t)
	tries := 0
	s.larder.await(t, func(ctx context.Context) bool {
		tries++
		image := s.ecr.add(t, plainImage{
			Repository: "disk/new", Tag: fmt.Sprint(tries), Seed: uint64(1000 + tries), Layers: []int64{900 << 10},
		})
		if _, err := p.pull(ctx, "disk/new", fmt.Sprint(tries)); err != nil {
			t.Error(err)
		}
		resp, err := p.get(ctx, "disk/new/blobs/"+image.Blobs[0].Digest.String())
		if err != nil {
			t.Error(err)
			return false
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err == nil && resp.Header.Get("X-Cache") == "HIT"
	})
}
