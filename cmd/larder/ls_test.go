package main

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
)

func TestExpiredImageIsListedWithItsRule(t *testing.T) {
	since := time.Now().Add(-73 * time.Hour)
	for _, c := range []struct {
		expired *cache.Expiry
		want    string
	}{
		{nil, "-"},
		{&cache.Expiry{Since: since, Rule: 10, Source: upkeep.SourceECR}, "expired 3 days ago (rule 10)"},
		{&cache.Expiry{Since: since, Rule: 1, Source: upkeep.SourceLocal}, "expired 3 days ago (local rule 1)"},
	} {
		if got := lifecycleOf(cache.ImageInfo{Expired: c.expired}); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
