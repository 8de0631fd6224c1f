// Package link shares a line among everything that upstreams send, so that all of it
// together stays within a rate, and what no client waits for within a rate and hours of
// its own.
//
// The bodies of blobs wait: a [Body] asks the [Link] for its turn before it reads. Other
// answers are small, and everything else of a pull waits for them, so they do not wait.
// Manifests and lists are charged: bodies wait until that is paid. Tokens and the answers of
// AWS's APIs are not counted.
//
// A turn is for a few bytes: see [Body.Turn]. When the rate allows for them, the next body has
// its turn:
//
//   - A body for which a client waits comes before all others. Those have what is left, and
//     one turn in twenty at least.
//   - The clients have their turns one after the other, however many bodies each has. A body's
//     client is the first one that asked for the blob, by its address. All bodies without such
//     an address count as those of one client.
//   - The bodies of a client have their turns in the order in which they wait.
//
// A body that no client waits for has a turn by the rate of the background first, and then one
// by that of the whole, and only within the hours. When a client begins to wait for it, it is
// the client's from then on.
//
// # Locks
//
// Link.mu is taken before a queue's; a queue's is taken alone otherwise, and neither is held
// while anything waits.
package link
