// Package ring has the keys of a cluster, and connections on which both ends have proved that
// they have one of them.
//
// A [Ring] has one key, or two while keys are being replaced. The first is used to send; all
// are accepted. There are no certificates to hand out: each process makes one for itself, which
// proves nothing, and each connection proves the key. The proof is an HMAC over the keying material
// that TLS 1.3 exports for this connection alone (RFC 5705, RFC 8446 section 7.5), so whoever
// is in the middle of two connections cannot pass it on. The client proves the key first, and
// sends nothing else before the server has proved that it has the same one.
//
// A [Listener] owns one goroutine that accepts, and one for each connection that has not
// proved the key yet. Close ends and awaits them. Locks: Ring.mu and Listener.mu are each taken
// alone, and no I/O happens under them.
package ring
