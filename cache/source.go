package cache

import "github.com/larder-registry/larder/cache/fill"

// The joint between the store and what has the bytes: see package fill.
type (
	Fetch   = fill.Fetch
	Range   = fill.Range
	Content = fill.Content
	Retry   = fill.Retry
)
