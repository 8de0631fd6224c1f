package pace_test

import (
	"testing"

	"github.com/larder-registry/larder/upstream/pace"
)

func TestBackgroundIsMarked(t *testing.T) {
	if _, background := pace.BackgroundOf(t.Context()); background {
		t.Error("a client's request is in the background")
	}
	if attended, background := pace.BackgroundOf(pace.Background(t.Context())); attended != nil || !background {
		t.Error("background work may become a client's")
	}
}

func TestBackgroundEndsWhenAClientWaits(t *testing.T) {
	begins := make(chan struct{})
	ctx := pace.BackgroundUntil(t.Context(), begins)
	if attended, background := pace.BackgroundOf(ctx); attended != begins || !background {
		t.Error("a client waits before it begins to")
	}
	close(begins)
	if _, background := pace.BackgroundOf(ctx); background {
		t.Error("no client waits after one began to")
	}
}
