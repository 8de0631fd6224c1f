package cache

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// Sixteen clients pull random images for ten minutes. All images together are three times
// as large as the bound. The folder is measured after each step that takes space.
func TestFolderNeverExceedsItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var largest atomic.Int64
		var steps sync.Mutex // locked during a step, so that no other step changes the folder while it is measured
		opts := bounded
		opts.LowWater, opts.IndexWorkers = 0.9, 2         // the index is merged too
		most := opts.MaxSize - disk.OverheadSlack + 1<<20 // the index does not grow by more
		opts.Segment = 128 << 10
		opts.steps.Around = func(s disk.Step, take func() error) error {
			steps.Lock()
			defer steps.Unlock()
			err := take()
			switch s.Op {
			case disk.OpMkdir, disk.OpCreate, disk.OpPreallocate, disk.OpSync:
				n, err := cachetest.Usage(dir)
				if err != nil || n > most {
					t.Errorf("after %s %s the folder takes %d bytes, want at most %d: %v", s.Op, s.Path, n, most, err)
				}
				largest.Store(max(largest.Load(), n))
			}
			return err
		}
		s := openStore(t, dir, opts)

		base := filltest.New(300<<10, 1000)
		layers := make([]*filltest.Origin, 56) // together more than three times 8 MiB
		images := make([]*image, len(layers)/2)
		for i := range layers {
			layers[i] = filltest.New((100+i*12)<<10+i, uint64(i))
		}
		for i := range images {
			images[i] = newImage(fmt.Sprint(i), base, layers[i], layers[len(layers)-1-i])
		}
		var hits, pulls atomic.Int64
		var clients sync.WaitGroup
		end := time.Now().Add(10 * time.Minute)
		for c := range 16 {
			random := rand.New(rand.NewPCG(1, uint64(c)))
			clients.Go(func() {
				for time.Now().Before(end) {
					i := min(random.IntN(len(images)), random.IntN(len(images))) // some images more often than others
					if _, _, err := s.Manifest(t.Context(), team, images[i].Digest, images[i].ask); err != nil {
						t.Error(err)
					}
					for _, o := range []*filltest.Origin{base, layers[i], layers[len(layers)-1-i]} {
						pulls.Add(1)
						if pull(t, s, o) == Hit {
							hits.Add(1)
						}
					}
					pass(time.Duration(random.IntN(120)) * time.Second)
				}
			})
		}
		clients.Wait()
		settle(t, s)
		checkCharges(t, s)
		t.Logf("%d of %d pulls were hits; the folder took up to %d bytes of %d", hits.Load(), pulls.Load(), largest.Load(), most)
		if part := float64(hits.Load()) / float64(pulls.Load()); part < 0.4 || part > 0.9 {
			t.Errorf("%v of the pulls were hits, want 0.4 to 0.9: the cache does not work, or is not full", part)
		}
	})
}
