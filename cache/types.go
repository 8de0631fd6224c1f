package cache

import (
	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/catalog"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/pins"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/cache/tasks"
)

// Repository is a repository of one upstream.
type Repository = records.Repository

// RepoDigest is a blob or a manifest as one repository has it.
type RepoDigest = records.RepoDigest

// What a store serves.
type (
	// Manifest is a manifest or an index.
	Manifest = manifest.Manifest
	// Blob is an open blob.
	Blob = blobs.Blob
	// State says how an answer came about.
	State = blobs.State
)

// The states of an answer.
const (
	Hit    = blobs.Hit
	Miss   = blobs.Miss
	Stale  = blobs.Stale
	Bypass = blobs.Bypass
)

// The joint between a store and what has the bytes.
type (
	// Source is a place that has a blob.
	Source = fill.Source
	// Fetch opens a blob's content at an offset.
	Fetch = fill.Fetch
	// Range is a stretch of a blob to ask for.
	Range = fill.Range
	// Content is an answer to a Range.
	Content = fill.Content
	// Retry bounds how a broken connection is replaced.
	Retry = fill.Retry
)

// VerifyOnRead says when the content of a blob is checked before it is served.
type VerifyOnRead = blobs.VerifyOnRead

// What a store tells of its content.
type (
	// ImageInfo is what the cache knows of an image.
	ImageInfo = catalog.Image
	// Holding is a manifest that a repository has in the cache.
	Holding = catalog.Holding
	// Verdict says that a lifecycle rule has expired an image.
	Verdict = records.Verdict
	// Expiry says since when, and by which rule, an image has expired.
	Expiry = records.Expiry
	// PinInfo is a pin.
	PinInfo = pins.Info
	// Missing is what a pin holds and the cache does not have.
	Missing = pins.Missing
	// FillInfo is the state of a fill.
	FillInfo = fill.Info
	// Eviction is a blob that was removed.
	Eviction = blobs.Eviction
	// ScrubResult is what a scrub found.
	ScrubResult = blobs.ScrubResult
)

// When blobs at rest are hashed before they are served: see [blobs.VerifyOnRead].
const (
	VerifyNever  = blobs.VerifyNever
	VerifyFirst  = blobs.VerifyFirst
	VerifyAlways = blobs.VerifyAlways
)

// MaxManifest is the size of the largest manifest, in bytes.
const MaxManifest = manifest.MaxSize

var (
	// ErrClosed is returned by the methods of a store that was closed.
	ErrClosed = tasks.ErrClosed
	// ErrConfigured is returned by [Store.Unpin] for an image that Options.Pin pins.
	ErrConfigured = pins.ErrConfigured
)
