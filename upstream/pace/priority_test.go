package pace_test

import (
	"context"
	"testing"

	"github.com/larder-registry/larder/upstream/pace"
)

func TestBackgroundWaitsForClients(t *testing.T) {
	if p := pace.PriorityOf(t.Context(), pace.Manifests); p != pace.Manifests {
		t.Errorf("a client's priority is %d", p)
	}
	ctx, cancel := context.WithCancel(pace.Background(t.Context()))
	defer cancel()
	if p := pace.PriorityOf(ctx, pace.Manifests); p != pace.Unattended {
		t.Errorf("the priority of background work is %d", p)
	}
}
