package records_test

import (
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/records"
)

func TestOneOfTwoOldNamesOfARecordIsKept(t *testing.T) {
	ix := open(t, t.TempDir()).Index
	named := func(upstream string) records.Repository {
		return records.Repository{Upstream: upstream, Name: "team/app"}
	}
	must(t,
		ix.PutTag(named("a.test:1"), "v1", records.Tag{Digest: layer, Checked: now}),
		ix.PutTag(named("a.test:2"), "v1", records.Tag{Digest: manifest, Checked: now}),
		ix.PutTag(named("b.test"), "v1", records.Tag{Digest: layer, Checked: now}),
		ix.PutTag(named("b.test:1"), "v1", records.Tag{Digest: manifest, Checked: now}),
		ix.RenameUpstreams(func(upstream string) string {
			host, _, _ := strings.Cut(upstream, ":")
			return host
		}),
	)
	got := read(t, ix).Tags
	if len(got) != 2 || got["a.test/team/app:v1"].Digest != layer || got["b.test/team/app:v1"].Digest != layer {
		t.Errorf("the tags are %v; the first old name and the canonical one come before others", got)
	}
}
