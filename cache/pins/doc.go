// Package pins knows which images are pinned, and which blobs these pins hold. Eviction
// skips these blobs.
//
// There are two kinds of pins: those of commands are in the index; those of the
// configuration follow from patterns and the tags in the cache. What is kept is pinned by its tag
// or digest, and so is the image that a kept tag is to name, which is in the index too. [Pins.Refresh] finds out anew
// what all of them hold. A caller that has changed in the index what a pin reaches calls it,
// or one of [Pins.ManifestKept] and [Pins.TagMoved].
//
// # Locks
//
// Pins.changing, during I/O, then Pins.mu, then that of recency.List. Settings.Match, Keep and
// KeptDigests are called under Pins.changing and must not call back.
package pins
