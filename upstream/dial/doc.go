// Package dial makes TCP connections: it looks a name up, and connects to the first
// of its addresses that answers.
//
// Look-up and connection have a time of their own, since a name server that is mute
// costs as long as the resolver waits for it (resolv.conf(5): 5 s), and a lost packet
// of the connection about a second. A name server that was mute is passed over while
// another one answers, and an address that could not be reached is left alone for a
// moment ([pace.Outages]).
//
// [Resolver] has one lock. It is never held while anything is sent.
package dial
