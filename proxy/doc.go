// Package proxy is Larder over HTTP for clients: the pull half of the distribution API
// (/v2). PROTOCOL.md says what each client is answered and why.
//
// It knows registries only as an [Upstream], and keeps what they send in a
// cache.Store. Package proxy/admin serves operators.
package proxy
