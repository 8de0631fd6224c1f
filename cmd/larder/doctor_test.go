package main

import (
	"strings"
	"testing"

	"github.com/larder-registry/larder/cmd/larder/doctor"
)

func TestDoctorPrintsALineForEachStep(t *testing.T) {
	var out strings.Builder
	show := showStep(&out)
	for _, s := range []doctor.Step{
		{Name: "configuration", Status: doctor.OK, Detail: "larder.yaml is valid"},
		{Name: "proxy", Status: doctor.Skipped, Detail: "HTTP_PROXY and HTTPS_PROXY are not set"},
		{Upstream: "registry.test", Name: "manifest", Status: doctor.Failed, Detail: "not found\n(404)", Advice: "Check the tag."},
		{Upstream: "registry.test", Name: "clock", Status: doctor.Warning, Detail: "1m0s ahead", Advice: "Set the clock."},
	} {
		show(s)
	}
	const want = `✓ configuration   larder.yaml is valid
– proxy           HTTP_PROXY and HTTPS_PROXY are not set

registry.test
✗ manifest        not found
                  (404)
                  → Check the tag.
! clock           1m0s ahead
                  → Set the clock.
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &out, want)
	}
}
