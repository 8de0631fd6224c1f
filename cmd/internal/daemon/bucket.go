package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/livefile"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// shelf is the bucket through which this node shares what it fetches, with the keys of its records.
type shelf struct {
	*bucket.Bucket
	keys *livefile.Follower[string] // nil if no file is configured
}

// openShelf opens the bucket; nil if none is configured, or if the AWS configuration of this machine cannot be read, which the
// log says. It asks nobody yet.
func (d *Daemon) openShelf(ctx context.Context) (*shelf, error) {
	s3 := d.cfg.Shared.S3
	if !s3.On() {
		return nil, nil
	}
	place, err := bucketPlace(s3)
	if err != nil {
		return nil, err
	}
	aws, transport, err := d.client.Storage(ctx, s3.Region, place.URL())
	if err != nil {
		d.log.Error("this node shares nothing through the bucket; it needs a restart when the AWS configuration is right", "bucket", place.String(), "error", err)
		return nil, nil
	}
	opened, err := bucket.New(bucket.Options{
		Place: place, AWS: aws, Transport: transport,
		Write: s3.Write, Rate: s3.Rate,
		Open: d.openVerified, Link: d.link, Patience: d.opts.BucketPatience,
		Log: d.log, Meter: d.telemetry.meter,
	})
	if err != nil {
		return nil, err
	}
	s := &shelf{Bucket: opened}
	if file := d.cfg.Shared.KeyFile; file != "" {
		const without = "the bucket is used without records of repositories and tags until the keys can be read"
		if err := s.loadKeys(file); err != nil {
			d.log.Error(without, "error", err)
		}
		s.keys = livefile.New(file, s.loadKeys, func(err error) {
			d.log.Error("the keys of the bucket's records cannot be read again; those before stay in use", "error", err)
		})
	}
	return s, nil
}

// bucketPlace is where the configured bucket is.
func bucketPlace(s3 config.S3) (bucket.Place, error) {
	place := bucket.Place{Bucket: s3.Bucket, Prefix: s3.Prefix, Region: s3.Region, PathStyle: s3.PathStyle}
	if s3.Endpoint == "" {
		return place, nil
	}
	endpoint, err := url.Parse(s3.Endpoint)
	if err != nil {
		return bucket.Place{}, fmt.Errorf("shared.s3.endpoint: %w", err)
	}
	place.Endpoint = endpoint
	return place, nil
}

// TryBucket finds out what works with the configured bucket. Where this node may write, it puts one small object.
func TryBucket(ctx context.Context, cfg *config.Config) (found bucket.Check, err error) {
	client := upstream.NewClient(upstream.Options{Lookup: Lookup(cfg), Log: slog.New(slog.DiscardHandler)})
	defer func() { err = errors.Join(err, client.Close()) }()
	place, err := bucketPlace(cfg.Shared.S3)
	if err != nil {
		return bucket.Check{}, err
	}
	aws, transport, err := client.Storage(ctx, cfg.Shared.S3.Region, place.URL())
	if err != nil {
		return bucket.Check{}, err
	}
	return bucket.Try(ctx, place, aws, transport, cfg.Shared.S3.Write), nil
}

// loadKeys puts the keys of a file to use.
func (s *shelf) loadKeys(file string) error {
	keys, err := ring.ReadKeys(file)
	if err != nil {
		return err
	}
	raw := make([][]byte, len(keys))
	for i, key := range keys {
		raw[i] = key[:]
	}
	return s.UseKeys(raw)
}

// Use reads another key file from now on, or the same one again.
func (s *shelf) Use(keyFile string) {
	if s != nil && s.keys != nil && keyFile != "" {
		s.keys.Use(keyFile)
	}
}

// FollowKeys follows the key file until ctx ends.
func (s *shelf) FollowKeys(ctx context.Context) {
	if s.keys != nil {
		s.keys.Run(ctx)
	}
}

// Close ends the bucket's metrics. No request may run any more.
func (s *shelf) Close() error {
	if s == nil {
		return nil
	}
	return s.Bucket.Close()
}

// onFilled and onMismatched tell the bucket, and the other nodes, what came of a blob.
func (d *Daemon) onFilled(dgst digest.Digest) {
	if d.shelf != nil {
		d.shelf.Filled(dgst)
	}
}

func (d *Daemon) onMismatched(dgst digest.Digest) {
	if d.shelf != nil {
		d.shelf.Mismatched(dgst)
	}
	if d.sharing != nil {
		d.sharing.Mismatched(dgst)
	}
}

// verified is content of the cache.
type verified struct {
	io.ReaderAt
	*cache.Blob
}

// Size is for [bucket.Verified].
func (v verified) Size() int64 { return v.Blob.Size }

// openVerified opens what the cache has.
func (d *Daemon) openVerified(_, _ string, dgst digest.Digest) (bucket.Verified, error) {
	blob, err := d.store.OpenHere(dgst)
	if err != nil {
		return nil, err
	}
	at, ok := blob.ReadSeeker.(io.ReaderAt)
	if !ok {
		return nil, errors.Join(errors.New("it cannot be read at an offset"), blob.Close())
	}
	return verified{at, blob}, nil
}

// withBucket returns the upstreams with the bucket before each, for questions that have come through a number of nodes.
// Those of which clients' own rights decide have none.
func (d *Daemon) withBucket(own func(host, repository string) (proxy.Source, error), hops int) func(host, repository string) (proxy.Source, error) {
	if d.shelf == nil {
		return own
	}
	return func(host, repository string) (proxy.Source, error) {
		source, err := own(host, repository)
		if err != nil || source.As != nil {
			return source, err
		}
		open := source.OpenBlob
		both := d.shelf.Source(bucket.Settings{
			Host:     host,
			Registry: source.Upstream,
			OpenBlob: func(ctx context.Context, repository string, dgst digest.Digest, part upstream.Range) (upstream.Content, error) {
				content, err := open(ctx, repository, dgst, cache.Range(part))
				return upstream.Content(content), err
			},
			Timeout: source.Timeout,
			Knows: func(repository string, dgst digest.Digest, isBlob bool) bool {
				asked := hops > 0 && isBlob && !needsProof(d.cfg)(host) // the node that asks knows the repository to have it
				return asked || d.store.MayHave(cache.Repository{Upstream: host, Name: repository}, dgst)
			},
			TagChecked: func(repository, tag string) (checked time.Time) {
				return d.store.TagChecked(cache.Repository{Upstream: host, Name: repository}, tag)
			},
			Parts: func(repository string, image digest.Digest) []digest.Digest {
				return partsOf(d.store, cache.Repository{Upstream: host, Name: repository}, image, maxNested)
			},
			StaleIfError: d.cfg.Tags.StaleIfError,
			Aged:         cache.Aged,
		})
		source.Upstream = both
		source.OpenBlob = func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error) {
			content, err := both.OpenBlob(ctx, repository, dgst, upstream.Range(part))
			return cache.Content(content), err
		}
		return source, nil
	}
}

// maxNested bounds how deep the manifests of an image are within each other.
const maxNested = 3

// partsOf returns an image and what it names, as far as the cache has it and the repository is proven to have it.
func partsOf(store *cache.Store, repo cache.Repository, image digest.Digest, nested int) []digest.Digest {
	m, ok := store.ManifestHere(repo, image)
	if !ok {
		return nil
	}
	var parts []digest.Digest
	if store.IsProven(repo, image) {
		parts = append(parts, image)
	}
	blobs, manifests, err := m.Named()
	if err != nil {
		return parts
	}
	for _, blob := range blobs {
		if store.IsProven(repo, blob.Digest) {
			parts = append(parts, blob.Digest)
		}
	}
	for _, child := range manifests {
		if nested > 0 {
			parts = append(parts, partsOf(store, repo, child.Digest, nested-1)...)
		}
	}
	return parts
}

// bucketStatus returns how the status of the bucket is found out; nil if there is none.
func (d *Daemon) bucketStatus() func() bucket.Status {
	if d.shelf == nil {
		return nil
	}
	return d.shelf.Status
}
