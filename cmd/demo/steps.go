package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// steps is the tour in its order: some steps need what earlier ones left in the cache.
func steps() []step {
	return []step{
		{"A cold pull", coldPull},
		{"Eight cold clients at once", coldClients},
		{"A warm pull", warmPull},
		{"A range far into a cold layer", coldRange},
		{"A token that expired", expiredToken},
		{"A wrong bit from the upstream", wrongBit},
		{"The upstream is dead", deadUpstream},
	}
}

// Bandwidths of a connection to the upstream, in bytes per second.
const (
	slowLink = 10_000_000 // slow enough to watch
	fastLink = 40_000_000 // slow enough for clients to overlap
	thinLink = 2_000_000  // slow enough for a layer to take far longer than a part of it
	noLimit  = 0
)

// coldPull: each byte of an image that is not cached comes from the upstream once.
func coldPull(ctx context.Context, s *stage) (shown, error) {
	s.ecr.SetBandwidth(slowLink)
	defer s.ecr.SetBandwidth(noLimit)
	bars := newBars(ctx, s.drawn)
	got, err := s.pull(ctx, s.images.app, bars.watch)
	bars.end()
	if err != nil {
		return shown{}, err
	}
	if err := s.requireSent(got.bytes); err != nil {
		return shown{}, err
	}
	layer := s.images.app.largest()
	ranges := s.ecr.Stats().Blobs[layer.Digest].Requests
	if ranges < 2 {
		return shown{}, fmt.Errorf("the layer of %s came in one piece", size(layer.Size))
	}
	alone := time.Duration(float64(layer.Size) / slowLink * float64(time.Second))
	note := fmt.Sprintf("%d blobs, %s, each byte fetched once. The layer of %s came in %d ranges, several at a time:\n"+
		"     at the %s/s that the upstream gives to a connection, one would have taken %v.",
		got.blobs, size(got.bytes), size(layer.Size), ranges, size(slowLink), rounded(alone))
	return shown{got.took, note}, nil
}

// coldClients: many clients that pull the same image at once share one fetch.
func coldClients(ctx context.Context, s *stage) (shown, error) {
	s.ecr.SetBandwidth(fastLink)
	defer s.ecr.SetBandwidth(noLimit)
	started := time.Now()
	var clients [8]pulled
	group, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		group.Go(func() (err error) {
			clients[i], err = s.pull(ctx, s.images.api, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return shown{}, err
	}
	one := clients[0].bytes
	note := fmt.Sprintf("%d clients got %s each, %s in all, from one fetch.",
		len(clients), size(one), size(one*int64(len(clients))))
	return shown{time.Since(started), note}, s.requireSent(one)
}

// warmPull: a cached image comes from the disk.
func warmPull(ctx context.Context, s *stage) (shown, error) {
	got, err := s.pull(ctx, s.images.app, nil)
	if err != nil {
		return shown{}, err
	}
	note := fmt.Sprintf("The image of step 1 again, %s from the disk at %s, the client's own checking included.",
		size(got.bytes), rate(got.bytes, got.took))
	return shown{got.took, note}, s.requireSent(0)
}

// coldRange: a client that reads a part of a layer does not wait for the bytes before it, and no byte is fetched twice.
func coldRange(ctx context.Context, s *stage) (shown, error) {
	s.ecr.SetBandwidth(thinLink)
	defer s.ecr.SetBandwidth(noLimit)
	const n = 64_000
	model := s.images.model
	layer := model.largest()
	off := layer.Size / 8 * 7
	want := make([]byte, n)
	if _, err := model.content.ReadAt(want, off); err != nil {
		return shown{}, err
	}

	started := time.Now()
	url := fmt.Sprintf("http://%s/v2/%s/%s/blobs/%s", s.larder.addr, s.ecr.Host(), model.name, layer.Digest)
	got, err := readRange(ctx, url, off, n)
	took := time.Since(started)
	if err != nil {
		return shown{}, err
	}
	sent := s.ecr.Stats().Blobs[layer.Digest].Bytes
	switch {
	case !bytes.Equal(got, want):
		return shown{}, errors.New("the range has other bytes than the layer")
	case sent >= off:
		return shown{}, fmt.Errorf("the upstream had sent %s before the range at %s was answered", size(sent), size(off))
	}

	s.ecr.SetBandwidth(noLimit)
	if _, err := s.pull(ctx, model, nil); err != nil {
		return shown{}, err
	}
	note := fmt.Sprintf("%s at offset %s of %s arrived, correct, when the upstream had sent %s of the layer.\n"+
		"     The rest followed, again each byte once.", size(n), size(off), size(layer.Size), size(sent))
	return shown{took, note}, s.requireSentOf(layer.Digest, layer.Size)
}

// expiredToken: clients do not notice when ECR's token expires.
func expiredToken(ctx context.Context, s *stage) (shown, error) {
	s.ecr.ExpireTokens()
	got, err := s.pull(ctx, s.images.worker, nil)
	if err != nil {
		return shown{}, err
	}
	if n := s.ecr.Stats().Tokens; n != 1 {
		return shown{}, fmt.Errorf("%d new tokens were asked for, want 1", n)
	}
	note := "ECR refused the token; Larder got a new one and asked again. The client did not notice."
	return shown{got.took, note}, s.requireSent(got.bytes)
}

// wrongBit: a blob that does not match its digest reaches no client completely, and is not kept.
func wrongBit(ctx context.Context, s *stage) (shown, error) {
	layer := s.images.billing.largest()
	mend := s.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Digest: layer.Digest, FlipBit: new(layer.Size / 2)})
	defer mend()
	_, err := s.pull(ctx, s.images.billing, nil)
	fate := "was cut off before the end of the layer"
	var answer *transport.Error
	switch {
	case err == nil:
		return shown{}, errors.New("the client got the whole layer, and should have been cut off")
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		fate = "got a 404, on which clients pull from elsewhere" // the fill had failed before the client's answer began
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return shown{}, fmt.Errorf("the client should be cut off, and got: %w", err)
	}
	mend()
	got, err := s.pull(ctx, s.images.billing, nil)
	if err != nil {
		return shown{}, fmt.Errorf("the next pull: %w", err)
	}
	note := "The client " + fate + ". Nothing was kept, and the next pull fetched it again."
	return shown{got.took, note}, s.requireSentOf(layer.Digest, 2*layer.Size)
}

// atOnce is how long a client may wait for a refusal.
const atOnce = 2 * time.Second

// deadUpstream: cached images are served without the upstream, also after a restart; others fail at once.
func deadUpstream(ctx context.Context, s *stage) (got shown, err error) {
	s.ecr.Stop()
	defer func() { err = errors.Join(err, s.ecr.Restart()) }()
	cached, err := pullCached(ctx, s)
	if err != nil {
		return shown{}, err
	}
	status, refused, err := pullUncached(ctx, s)
	if err != nil {
		return shown{}, err
	}
	if err := s.larder.stop(); err != nil {
		return shown{}, err
	}
	if err := s.larder.start(ctx); err != nil {
		return shown{}, err
	}
	if _, _, err := pullUncached(ctx, s); err != nil {
		return shown{}, fmt.Errorf("after a restart: %w", err)
	}
	again, err := pullCached(ctx, s)
	if err != nil {
		return shown{}, fmt.Errorf("after a restart: %w", err)
	}
	note := fmt.Sprintf("The image of step 1 by tag and by digest, and after a restart of Larder again, in %v.\n"+
		"     Another image was refused after %v with %d, on which clients pull from elsewhere.",
		rounded(again.took), rounded(refused), status)
	return shown{cached.took, note}, nil
}

// pullCached pulls the image of the first step by digest and by tag. The time is that of the pull by tag.
func pullCached(ctx context.Context, s *stage) (pulled, error) {
	if _, err := s.pullByDigest(ctx, s.images.app); err != nil {
		return pulled{}, fmt.Errorf("by digest: %w", err)
	}
	got, err := s.pull(ctx, s.images.app, nil)
	if err != nil {
		return pulled{}, fmt.Errorf("by tag: %w", err)
	}
	return got, nil
}

// pullUncached pulls an image that is not in the cache. It returns the status of the refusal, and how long it took.
func pullUncached(ctx context.Context, s *stage) (status int, took time.Duration, err error) {
	started := time.Now()
	_, err = pull(ctx, s.repository("team/never-pulled")+":"+tag, nil)
	took = time.Since(started)
	var answer *transport.Error
	switch {
	case err == nil:
		return 0, 0, errors.New("a pull of an image that is not cached succeeded")
	case !errors.As(err, &answer):
		return 0, 0, fmt.Errorf("a pull of an image that is not cached ended without an answer: %w", err)
	case answer.StatusCode != http.StatusNotFound && answer.StatusCode != http.StatusServiceUnavailable:
		return 0, 0, fmt.Errorf("no client falls back on this answer: %w", err)
	case took > atOnce:
		return 0, 0, fmt.Errorf("a client waited %v for the refusal", rounded(took))
	}
	return answer.StatusCode, took, nil
}
