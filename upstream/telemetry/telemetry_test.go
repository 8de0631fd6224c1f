package telemetry_test

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRegionsInMetricsAreFew(t *testing.T) {
	counters, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const most = 64
	labels := make(map[string]bool)
	for i := range 4 * most {
		labels[counters.Region(fmt.Sprint("made-up-", i))] = true
	}
	if len(labels) != most+1 || !labels["other"] || counters.Region("made-up-0") != "made-up-0" {
		t.Errorf("%d regions", len(labels))
	}
	if err := counters.Close(); err != nil {
		t.Error(err)
	}
}
