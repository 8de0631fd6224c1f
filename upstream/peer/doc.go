// Package peer has the nodes of a cluster share what they fetch: each blob, manifest, tag and list of referrers
// has an owner in each zone, which asks the upstream for all. It knows no cache: [Source] is an upstream in
// which the owner is asked first, and [Peers.Handler] wraps what answers clients, so that it answers other nodes.
//
// # The way of a request
//
//	Source              asks the key's owner, then the node that takes the owner's place, then the upstream
//	Peers.owners        which nodes are asked before the upstream, and elsewhere those of other zones
//	Peers.ask           one question to one node: signs of life, redirects, what the answer may be
//	Handler             at the other node: gives, passes on or refuses; sends signs of life until there is an answer
//
// # Signs of life
//
// A node that does not answer is given up after [Patience]. An owner that waits for its upstream says so by
// answers of status 102, and nodes that wait for it pass them on. Only a node that asks its upstream begins
// them, so nodes that wait for each other in a circle fall silent and ask the upstream.
//
// While the owner is silent the node that takes its place is greeted, so that two dead nodes cost the patience of one.
//
// # Zones
//
// A node asks the nodes of its own zone. Other zones are asked in two cases. With [Options.Span], the owner in a
// zone asks the owner of the whole cluster, which is the owner in its own zone too, before the upstream. Otherwise the owner, and a
// node that has asked the upstream itself, asks the owners in other zones after the upstream could not be had: not if it has
// refused, and not if it is offline. A node whose upstream is offline asks others for what they have alone, so that nobody asks the
// upstream for it.
//
// # An upstream that is down
//
// A node that could not ask its upstream says so with its answer. Where two nodes say so, a third does not ask the
// upstream by itself: a thousand nodes do not each try. One node's word is not enough, as it may have no network, or lie.
//
// # Nodes that drain
//
// A node that drains owns nothing any more. What it has begun it ends, from the upstream, and its successor asks it for that
// before the upstream.
//
// # Below it
//
//	ring     the cluster's keys, and connections that prove them
//	members  which nodes there are, by gossip
//	tree     who owns what, and who is given it by whom: pure
//
// # Goroutines and locks
//
// A request has one goroutine that passes signs of life on, and a question one that greets the next node; they end with it. The locks of signs, avoided,
// failures, places, ledger and routes are each taken alone, and nothing is sent under them.
package peer
