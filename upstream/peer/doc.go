// Package peer has the nodes of a zone share what they fetch: each blob, manifest, tag and list of referrers
// has an owner among them, which asks the upstream for all. It knows no cache: [Source] is an upstream in
// which the owner is asked first, and [Peers.Handler] wraps what answers clients, so that it answers other nodes.
//
// # The way of a request
//
//	Source              asks the key's owner, then the node that takes the owner's place, then the upstream
//	Peers.ask           one question to one node: signs of life, redirects, what the answer may be
//	Handler             at the other node: gives, passes on or refuses; sends signs of life until there is an answer
//
// # Signs of life
//
// A node that does not answer is given up after [Patience]. An owner that waits for its upstream says so by
// answers of status 102, and nodes that wait for it pass them on. Only a node that asks its upstream begins
// them, so nodes that wait for each other in a circle fall silent and ask the upstream.
//
// # Below it
//
//	ring     the cluster's keys, and connections that prove them
//	members  which nodes there are, by gossip
//	tree     who owns what, and who is given it by whom: pure
//
// # Goroutines and locks
//
// A request has one goroutine that passes signs of life on, which ends with it. The locks of signs, avoided
// and routes are each taken alone, and nothing is sent under them.
package peer
