// Package recency is the order in which blobs, manifests and partial downloads were last
// used. Eviction takes them in this order.
//
// Order is all that eviction needs. The use of an image moves its index, manifest, config
// and layers to the recent end, in this order. So everything that an image needs is more
// recent than the image itself: the image is evicted first, and what another image shares
// with it stays.
//
// Images that lifecycle rules have expired are evicted before all others. They have an
// order of their own as well, until they are used.
//
// List.mu is a leaf lock: no other lock is taken, and no I/O is done, while it is locked.
package recency
