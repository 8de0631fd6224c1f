package daemon

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// BenchmarkNobodyThere measures how much later the first byte of a cold blob comes if peers are configured and nobody is
// there: pairs of pulls, with peers and without, in turn. The contract is 5 ms. That nothing is waited for is asserted by
// TestNobodyThereCostsNothing of package peer.
//
//	go test -run '^$' -bench NobodyThere -benchtime 200x ./cmd/internal/daemon
func BenchmarkNobodyThere(b *testing.B) {
	z := newZone(b)
	with, _ := z.start(b, 0, "")
	cfg, err := config.Load(writeConfig(b, configFor(z.ecr)))
	if err != nil {
		b.Fatal(err)
	}
	without, stop := serve(b, cfg, 0)
	defer stop()
	var later []time.Duration
	for n := 0; b.Loop(); n++ {
		added, err := z.ecr.AddImage("team/app", fmt.Sprint("v", n), ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(uint64(n), 64<<10)}}})
		if err != nil {
			b.Fatal(err)
		}
		path := "/v2/team/app/blobs/" + added.Blobs[len(added.Blobs)-1].Digest.String()
		var took [2]time.Duration
		for i := range 2 {
			which := (i + n) % 2 // each is the first as often as the other
			took[which] = []*inside{with, without}[which].firstByte(b, path)
		}
		later = append(later, took[0]-took[1])
	}
	slices.Sort(later)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(later[len(later)/2].Microseconds())/1000, "ms-later-p50")
	b.ReportMetric(float64(later[len(later)*95/100].Microseconds())/1000, "ms-later-p95")
}

// firstByte returns how long the first byte of a path takes.
func (s *inside) firstByte(b *testing.B, path string) time.Duration {
	b.Helper()
	began := time.Now()
	resp, err := s.client.Get("http://" + s.listen + path)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := resp.Body.Read(make([]byte, 1)); n != 1 || resp.StatusCode != http.StatusOK {
		b.Fatalf("GET %s: %s, %v", path, resp.Status, err)
	}
	return time.Since(began)
}
