// Package members knows which nodes are in the cluster, by gossip: hashicorp/memberlist, which is
// SWIM. What it says is a hint. A node is not trusted because it is a member, but because it
// proves the cluster's key on each connection (package ring).
//
// memberlist is known to lack some things, which this package adds:
//
//   - It never joins again by itself after a partition: [Members] looks up the names to join anew,
//     and joins nodes that it does not know, and some that it has lost, for as long as it runs.
//   - Addresses that come back as another node, or in another cluster: each process has a random
//     name, and all messages have a label and are encrypted.
//   - Metadata of more than 512 bytes makes it panic: [Node] is encoded in fewer than 256.
//
// # Goroutines and locks
//
// memberlist has its own goroutines, and calls [Members] from them; one more joins again. Close
// ends and awaits them. Members.mu is taken alone; nothing is sent and no callback is made
// under it.
package members
