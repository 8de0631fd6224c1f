package upkeep_test

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestECRTellsWhenAnImageWasPushed(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	pushed := clock.Now()
	added, err := r.ecr.AddImage("team/app", "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 10)}}})
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour)
	times := upkeep.NewPushTimes(r.cfg, r.client, r.logger)
	at, ok := times.Of(t.Context(), cache.Repository{Upstream: r.ecr.Host(), Name: "team/app"}, added.Root.Digest)
	if d := at.Sub(pushed); !ok || d < -time.Minute || d > time.Minute {
		t.Errorf("pushed at %v, %t; want %v\n%s", at, ok, pushed, r.log.String())
	}
	for name, repo := range map[string]cache.Repository{
		"another registry":   {Upstream: "docker.io", Name: "library/redis"},
		"another repository": {Upstream: r.ecr.Host(), Name: "team/other"},
	} {
		if at, ok := times.Of(t.Context(), repo, added.Root.Digest); ok {
			t.Errorf("%s: %v", name, at)
		}
	}
	r.offline.Store(true)
	if at, ok := times.Of(t.Context(), cache.Repository{Upstream: r.ecr.Host(), Name: "team/app"}, added.Root.Digest); ok {
		t.Errorf("offline: %v", at)
	}
}
