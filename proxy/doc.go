// Package proxy is Larder over HTTP: the distribution API (/v2) for clients,
// and the admin listener. PROTOCOL.md says what each client is answered and why.
//
// It knows registries only as an [Upstream], and keeps what they send in a
// cache.Store.
package proxy
