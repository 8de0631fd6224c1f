package records_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// The release before reads the record of a local tag as that of any other, and the other way round.
func TestLocalTagIsReadByTheReleaseBefore(t *testing.T) {
	type tagBefore struct {
		Digest  digest.Digest `json:"digest"`
		Checked time.Time     `json:"checked"`
		Before  digest.Digest `json:"before,omitempty"`
	}
	raw, err := json.Marshal(records.Tag{Digest: manifest, Checked: now, Local: true})
	must(t, err)
	var before tagBefore
	must(t, json.Unmarshal(raw, &before))
	if want := (tagBefore{Digest: manifest, Checked: now}); !cmp.Equal(before, want) {
		t.Errorf("the release before reads %+v", before)
	}
	raw, err = json.Marshal(before)
	must(t, err)
	var tag records.Tag
	must(t, json.Unmarshal(raw, &tag))
	if tag.Local {
		t.Errorf("%s is local", raw)
	}
	ordinary, err := json.Marshal(records.Tag{Digest: manifest, Checked: now})
	must(t, err)
	if strings.Contains(string(ordinary), "local") || string(ordinary) != string(raw) {
		t.Errorf("the record of an ordinary tag has changed: %s, %s", ordinary, raw)
	}
}
