package main

import "testing"

// coldClients is how many clients pull an image at once that Larder does not have.
const coldClients = 16

func TestColdClientsShareOneFetchOfEachBlob(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{
		Repository: "cold/app",
		Tag:        "1",
		Seed:       1,
		Layers:     []int64{1 << 10, 64 << 10, 1 << 20, 16 << 20, 96 << 20},
	})
	requirePull(t, s.newPullers(t, coldClients), "cold/app", "1", image.Root.Digest)

	sent := s.ecr.stats(t)
	for _, blob := range image.Blobs {
		if got := sent.Blobs[blob.Digest].Bytes; got != blob.Size {
			t.Errorf("the upstream sent %d bytes of %s, want %d", got, blob.Digest, blob.Size)
		}
	}
	if sent.Tokens != 1 {
		t.Errorf("the upstream issued %d tokens, want 1", sent.Tokens)
	}
}
