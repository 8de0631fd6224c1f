// Package upkeep is what a daemon does by itself, beside answering clients:
//
//   - [Lifecycle] marks the images in the cache that lifecycle rules have expired,
//     so that they are evicted first, and removes those that are gone upstream
//     where the configuration says so.
//   - [ImmutableTags] knows which tags ECR does not let move, so that they need no
//     revalidation.
//   - [KeepAlive] tells ECR which images are in use, since ECR does not see pulls
//     that the cache serves.
//   - [Pins] fetches content of pinned images that the cache is missing.
//   - [Proofs] asks upstreams whether their repositories have what is in the cache and
//     their manifests name, so that it can be served without them.
//
// Each has a Run method that works until its context ends. All of them ask
// upstreams slowly, one question at a time, and go on when an upstream fails: what
// they learned before still holds. An upstream that is offline is not asked, and that is
// no failure. None of them holds a lock while it asks.
package upkeep
