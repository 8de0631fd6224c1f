package proxy

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// White-box: more readers than the listed ones are easier to add than to connect.

func TestFillListsItsFirstReaders(t *testing.T) {
	var rs readers
	blob, other := digest.FromString("blob"), digest.FromString("other")
	var remove []func()
	for i := range 20 {
		repo := cache.Repository{Upstream: "registry.test", Name: fmt.Sprint("team/app", i%3)}
		remove = append(remove, rs.add(target{route: route{digest: blob}, repo: repo, client: fmt.Sprint("fd00::", i+1)},
			fmt.Sprintf("containerd/2.%d linux %s", i, strings.Repeat("x", 100))))
	}
	fills := rs.of([]cache.FillInfo{{Digest: blob}, {Digest: other}})
	if got := fills[0]; got.Waiting != 20 || len(got.Clients) != maxListed || len(got.Repositories) != 3 {
		t.Errorf("fill with 20 readers: %+v", got)
	}
	if first := fills[0].Clients[0]; first.Address != "fd00::1" || first.Agent != "containerd/2.0" || first.Since.IsZero() {
		t.Errorf("first client: %+v", first)
	}
	if got := fills[1]; got.Waiting != 0 || got.Clients == nil || got.Repositories == nil {
		t.Errorf("fill without readers: %+v", got)
	}
	for _, one := range remove {
		one()
	}
	if got := rs.of([]cache.FillInfo{{Digest: blob}})[0]; got.Waiting != 0 {
		t.Errorf("fill after all readers have left: %+v", got)
	}
}

func TestAgentIsCutShort(t *testing.T) {
	long := (&reader{agent: strings.Repeat("é", 100)}).shown()
	if len(long.Agent) > maxAgent+len("…") || !utf8.ValidString(long.Agent) {
		t.Errorf("client: %+v", long)
	}
}
