package main

import (
	"context"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestClientsDoNotNoticeAnExpiredToken(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	image := s.remoteImage(t, localPlatform()[0]) // its manifests are read, and a token is in use
	s.ecr.expireTokens(t)
	requireWhole(t, image)
	if got := s.ecr.stats(t).Tokens; got != 2 {
		t.Errorf("%d tokens were issued, want the first and one renewal", got)
	}
}

// Storage stops in the middle of every fill while both the token and the signed URLs expire, so that each fill must
// come back to the registry with a token that is no good any more.
func TestTokenThatExpiresWhileManyFillsRunIsRenewedOnce(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	layers := make([]int64, coldClients)
	for i := range layers {
		layers[i] = 33 << 20 // more than the four segments of 8 MiB that a fill may have asked for before the expiry
	}
	image := s.ecr.add(t, plainImage{Repository: "token/app", Tag: "1", Seed: 1, Layers: layers})
	const held = 1 << 20
	s.ecr.hold(t, held)

	group, ctx := errgroup.WithContext(t.Context())
	p := s.newPuller(t)
	group.Go(func() error {
		_, err := p.pull(ctx, "token/app", "1")
		return err
	})
	s.larder.await(t, func(context.Context) bool {
		running := 0
		for _, blob := range s.ecr.stats(t).Blobs {
			if blob.Bytes >= held {
				running++
			}
		}
		return running == len(layers)
	})
	s.ecr.expireTokens(t)
	s.ecr.expireURLs(t)
	s.ecr.mend(t)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}

	sent := s.ecr.stats(t)
	if sent.Tokens != 2 {
		t.Errorf("%d tokens were issued, want the first and one renewal", sent.Tokens)
	}
	for _, blob := range image.Blobs {
		got := sent.Blobs[blob.Digest]
		if got.Bytes != blob.Size {
			t.Errorf("the upstream sent %d bytes of %s, want %d", got.Bytes, blob.Digest, blob.Size)
		}
		if blob.Size > held && got.Redirects < 2 {
			t.Errorf("%s came through %d signed URLs, want another one after the first expired", blob.Digest, got.Redirects)
		}
	}
}
