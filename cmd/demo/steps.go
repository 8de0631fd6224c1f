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

// steps is the tour, in its order: some need what those before them left in the cache.
func steps() []step {
	return []step{
		{"A cold pull", (*stage).coldPull},
		{"Eight cold clients at once", (*stage).coldClients},
		{"A warm pull", (*stage).warmPull},
		{"A range far into a cold layer", (*stage).coldRange},
		{"A token that expired", (*stage).expiredToken},
		{"A wrong bit from the upstream", (*stage).wrongBit},
		{"The upstream is dead", (*stage).deadUpstream},
	}
}

// What a connection to the upstream gets, in bytes per second.
const (
	slowLink = 10_000_000 // slow enough to look on
	fastLink = 40_000_000 // and so that clients meet
	thinLink = 2_000_000  // so that a layer takes far longer than a part of it
	noLimit  = 0
)

// coldPull: each byte of an image that nobody has pulled yet comes from the upstream once.
func (s *stage) coldPull(ctx context.Context) (shown, error) {
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

// coldClients: however many clients want the same at once, it is fetched once for all of them.
func (s *stage) coldClients(ctx context.Context) (shown, error) {
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

// warmPull: what is cached comes from the disk.
func (s *stage) warmPull(ctx context.Context) (shown, error) {
	got, err := s.pull(ctx, s.images.app, nil)
	if err != nil {
		return shown{}, err
	}
	note := fmt.Sprintf("The image of step 1 again, %s from the disk at %s, the client's own checking included.",
		size(got.bytes), rate(got.bytes, got.took))
	return shown{got.took, note}, s.requireSent(0)
}

// coldRange: a client that wants a part of a layer does not wait for what lies before it, and nothing is fetched twice
// because of it.
func (s *stage) coldRange(ctx context.Context) (shown, error) {
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
		return shown{}, errors.New("the bytes of the range are not those of the layer")
	case sent >= off:
		return shown{}, fmt.Errorf("the upstream had sent %s before the range at %s was answered", size(sent), size(off))
	}

	s.ecr.SetBandwidth(noLimit)
	if _, err := s.pull(ctx, model, nil); err != nil {
		return shown{}, err
	}
	note := fmt.Sprintf("%s at offset %s of %s: right, and there when the upstream had sent %s of the layer.\n"+
		"     The rest followed: each byte once, here too.", size(n), size(off), size(layer.Size), size(sent))
	return shown{took, note}, s.requireSentOf(layer.Digest, layer.Size)
}

// expiredToken: ECR's tokens expire, and clients do not notice.
func (s *stage) expiredToken(ctx context.Context) (shown, error) {
	s.ecr.ExpireTokens()
	got, err := s.pull(ctx, s.images.worker, nil)
	if err != nil {
		return shown{}, err
	}
	if n := s.ecr.Stats().Tokens; n != 1 {
		return shown{}, fmt.Errorf("%d new tokens were asked for, want 1", n)
	}
	note := "ECR refused the token; Larder got a new one, asked again, and the client saw nothing of it."
	return shown{got.took, note}, s.requireSent(got.bytes)
}

// wrongBit: what does not match its digest reaches no client whole, and is not kept.
func (s *stage) wrongBit(ctx context.Context) (shown, error) {
	layer := s.images.billing.largest()
	mend := s.ecr.Inject(ecrtest.Fault{On: ecrtest.Storage, Digest: layer.Digest, FlipBit: new(layer.Size / 2)})
	defer mend()
	_, err := s.pull(ctx, s.images.billing, nil)
	fate := "was cut short before the layer's end"
	var answer *transport.Error
	switch {
	case err == nil:
		return shown{}, errors.New("the client got the whole layer, and should have been cut short")
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		fate = "was told to go elsewhere" // the end of the layer was here before the client's answer began
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return shown{}, fmt.Errorf("the client should be cut short, and got: %w", err)
	}
	mend()
	got, err := s.pull(ctx, s.images.billing, nil)
	if err != nil {
		return shown{}, fmt.Errorf("the next pull: %w", err)
	}
	note := "The client " + fate + ", nothing was kept, and the next pull fetched it anew."
	return shown{got.took, note}, s.requireSentOf(layer.Digest, 2*layer.Size)
}

// atOnce is how long a client may wait to hear that it cannot have something.
const atOnce = 2 * time.Second

// deadUpstream: what is cached is served without the upstream, after a restart too; what is not fails at once.
func (s *stage) deadUpstream(ctx context.Context) (got shown, err error) {
	s.ecr.Stop()
	defer func() { err = errors.Join(err, s.ecr.Restart()) }()
	cached, err := s.pullCached(ctx)
	if err != nil {
		return shown{}, err
	}
	status, refused, err := s.pullAbsent(ctx)
	if err != nil {
		return shown{}, err
	}
	if err := s.larder.stop(); err != nil {
		return shown{}, err
	}
	if err := s.larder.start(ctx); err != nil {
		return shown{}, err
	}
	if _, _, err := s.pullAbsent(ctx); err != nil {
		return shown{}, fmt.Errorf("after a restart: %w", err)
	}
	again, err := s.pullCached(ctx)
	if err != nil {
		return shown{}, fmt.Errorf("after a restart: %w", err)
	}
	note := fmt.Sprintf("The image of step 1 by tag and by digest; and after a restart of Larder once more, in %v.\n"+
		"     What is not cached was refused after %v with %d, on which clients go elsewhere.",
		rounded(again.took), rounded(refused), status)
	return shown{cached.took, note}, nil
}

// pullCached pulls by digest and by tag what the first step left in the cache. The time is that of the pull by tag.
func (s *stage) pullCached(ctx context.Context) (pulled, error) {
	if _, err := s.pullByDigest(ctx, s.images.app); err != nil {
		return pulled{}, fmt.Errorf("by digest: %w", err)
	}
	got, err := s.pull(ctx, s.images.app, nil)
	if err != nil {
		return pulled{}, fmt.Errorf("by tag: %w", err)
	}
	return got, nil
}

// pullAbsent pulls what is not in the cache. It returns how a client was refused, and after how long.
func (s *stage) pullAbsent(ctx context.Context) (status int, took time.Duration, err error) {
	started := time.Now()
	_, err = pull(ctx, s.repository("team/never-pulled")+":"+tag, nil)
	took = time.Since(started)
	var answer *transport.Error
	switch {
	case err == nil:
		return 0, 0, errors.New("a pull of what is not cached went well")
	case !errors.As(err, &answer):
		return 0, 0, fmt.Errorf("a pull of what is not cached ended without an answer: %w", err)
	case answer.StatusCode != http.StatusNotFound && answer.StatusCode != http.StatusServiceUnavailable:
		return 0, 0, fmt.Errorf("no client falls back on the answer to what is not cached: %w", err)
	case took > atOnce:
		return 0, 0, fmt.Errorf("a client waited %v to hear that something is not cached", rounded(took))
	}
	return answer.StatusCode, took, nil
}
