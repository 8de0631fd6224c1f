package share

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGlanceSumsUp(t *testing.T) {
	until := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	st := Status{
		Given: 7, Taken: 100,
		Nodes: []Node{
			{Address: "10.0.0.1:5002", Zone: "a", Version: "v2", Self: true},
			{Address: "10.0.0.2:5002", Zone: "a", Version: "v2", Given: 7, Taken: 60},
			{Address: "10.0.0.3:5002", Zone: "b", Version: "v1"},
			{Address: "10.0.0.4:5002", Zone: "a", Version: "v2", Taken: 40, Draining: true},
		},
		Avoided: []Avoided{
			{Address: "10.0.0.3:5002", Why: "refused", Until: until},
			{Address: "10.0.0.3:5002", Why: "slow", Until: until, Blob: "sha256:1"},
			{Address: "10.0.0.4:5002", Why: "slow", Until: until, Blob: "sha256:1"},
			{Address: "10.0.0.4:5002", Why: "slow", Until: until, Blob: "sha256:2"},
		},
	}
	want := Glance{
		Self: "10.0.0.1:5002", Zone: "a", Nodes: 4, Given: 7, Taken: 100,
		Zones:    []GlanceGroup{{Name: "a", Nodes: 3, Given: 7, Taken: 100}, {Name: "b", Nodes: 1}},
		Versions: []GlanceGroup{{Name: "v2", Nodes: 3, Given: 7, Taken: 100}, {Name: "v1", Nodes: 1}},
		Top: []GlanceNode{
			{Address: "10.0.0.3:5002", Zone: "b", Version: "v1", Avoided: true},
			{Address: "10.0.0.2:5002", Zone: "a", Version: "v2", Given: 7, Taken: 60},
			{Address: "10.0.0.4:5002", Zone: "a", Version: "v2", Taken: 40, Draining: true},
		},
		Avoided: []GlanceAvoid{
			{Address: "10.0.0.3:5002", Why: "refused", Until: until},
			{Address: "10.0.0.4:5002", Why: "slow", Until: until, Blobs: 2},
		},
	}
	if diff := cmp.Diff(want, st.Glance()); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestGlanceOfALargeClusterIsSmall(t *testing.T) {
	var st Status
	for i := range 5000 {
		st.Nodes = append(st.Nodes, Node{
			Address: fmt.Sprintf("10.0.%d.%d:5002", i/250, i%250), Zone: fmt.Sprintf("zone-%d", i%100), Version: fmt.Sprintf("v1.%d", i%50),
			Self: i == 4321, Given: int64(i), Taken: int64(i),
		})
		st.Avoided = append(st.Avoided, Avoided{Address: st.Nodes[i].Address, Blob: "sha256:1"})
	}
	g := st.Glance()
	raw, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 8<<10 {
		t.Errorf("it has %d bytes", len(raw))
	}
	if g.Nodes != 5000 || g.More != 4999-glanceNodes || g.Top[0].Given != 4999 || g.Zones[0].Name != "zone-21" {
		t.Errorf("it is %s", raw)
	}
	for name, groups := range map[string][]GlanceGroup{"zones": g.Zones, "versions": g.Versions} {
		sum, names := 0, 0
		for _, group := range groups {
			sum += group.Nodes
			names += max(group.Others, 1)
		}
		if sum != 5000 || names != map[string]int{"zones": 100, "versions": 50}[name] {
			t.Errorf("the %s have %d nodes and %d names", name, sum, names)
		}
	}
}
