// Package pins knows which images are pinned, and which blobs these pins hold. Eviction
// skips these blobs.
//
// There are two kinds of pins: those of commands are in the index; those of the
// configuration follow from patterns and the tags in the cache. [Pins.Refresh] finds out anew
// what all of them hold. Whoever changes in the index what a pin reaches calls it, or one of
// [Pins.ManifestKept] and [Pins.TagMoved], afterwards.
//
// # Locks
//
// Pins.changing, during I/O, then Pins.mu.
package pins
