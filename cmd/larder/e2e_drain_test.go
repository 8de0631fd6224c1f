package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// drainRounds is how often Larder is told to end in the middle of a pull, LARDER_CRASH_TESTS=all times ten.
func drainRounds() int {
	if os.Getenv("LARDER_CRASH_TESTS") == "all" {
		return 10
	}
	return 2
}

// inChunks has containerd 2 fetch each layer in chunks of 1 MiB, eight at a time.
const inChunks = `[plugins."io.containerd.transfer.v1.local"]
  concurrent_layer_fetch_buffer = 1048576
  max_concurrent_downloads = 8
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux"
    snapshotter = "` + snapshotter + `"
`

// A client that fetches a layer in chunks opens a connection for each. Its registry cannot be reached, so that a chunk
// that Larder does not answer fails the pull.
func TestPullInChunksFinishesWhileLarderDrains(t *testing.T) {
	t.Parallel()
	requireContainerd(t)
	s := startStack(t)
	for round := range drainRounds() {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			if round > 0 {
				s.moveCache(t, filepath.Join(shortTempDir(t), "cache"))
				s.startLarder(t)
			}
			s.ecr.limit(t, 2<<20)
			c := containerds()[1].startWith(t, inChunks)
			s.mirrorFor(t, c)
			before := s.ecr.stats(t).Bytes()
			pulled := make(chan error, 1)
			go func() {
				_, err := tryRun(t, c.env, c.ctr, "--address", c.address,
					"images", "pull", "--hosts-dir", c.hosts, "--snapshotter", snapshotter, s.ecr.image())
				pulled <- err
			}()
			s.larder.await(t, func(context.Context) bool { return len(pulled) > 0 || s.ecr.stats(t).Bytes()-before > 8<<20 })
			if len(pulled) > 0 {
				t.Fatalf("the pull ended before Larder was told to: %v", <-pulled)
			}
			if err := s.larder.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-pulled; err != nil {
				t.Errorf("the pull during the drain: %v\n%s", err, s.larder.logged())
			}
			<-s.larder.exited
			if err := s.larder.err; err != nil {
				t.Errorf("larder ended with %v, want exit status 0", err)
			}
			_, drain, _ := strings.Cut(s.larder.logged(), "msg=draining")
			if chunks := strings.Count(drain, "status=206"); chunks < 10 {
				t.Errorf("%d chunks were answered during the drain", chunks)
			}
		})
	}
}
