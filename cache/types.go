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

// The types of a store's face. The packages that declare them document them.
type (
	Repository = records.Repository

	Manifest = manifest.Manifest
	Blob     = blobs.Blob
	State    = blobs.State

	Fetch   = fill.Fetch
	Range   = fill.Range
	Content = fill.Content
	Retry   = fill.Retry

	ImageInfo = catalog.Image
	Holding   = catalog.Holding
	Expiry    = records.Expiry
	Verdict   = records.Verdict
	PinInfo   = pins.Info
	Missing   = pins.Missing

	FillInfo    = fill.Info
	Eviction    = blobs.Eviction
	ScrubResult = blobs.ScrubResult
)

// How an answer came about: see [blobs.State].
const (
	Hit    = blobs.Hit
	Miss   = blobs.Miss
	Stale  = blobs.Stale
	Bypass = blobs.Bypass
)

// MaxManifest is the size of the largest manifest, in bytes.
const MaxManifest = manifest.MaxSize

var (
	// ErrClosed is returned by the methods of a store that was closed.
	ErrClosed = tasks.ErrClosed
	// ErrConfigured is returned by [Store.Unpin] for an image that Options.Pin pins.
	ErrConfigured = pins.ErrConfigured
)
