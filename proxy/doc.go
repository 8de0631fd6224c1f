// Package proxy is Larder over HTTP for clients: the pull half of the distribution API
// (/v2). PROTOCOL.md documents each response, and the reason for it. Package proxy/admin
// serves operators.
//
// The proxy knows registries only as an [Upstream], and keeps what they send in a
// cache.Store. The way of a request:
//
//   - proxy.go: ServeHTTP parses the path into a route, finds its upstream, which makes
//     it a target, and calls the handler of its kind.
//   - pull.go: a manifest or a blob that the store can serve at once is sent. For any
//     other the store is opened with functions that ask the upstream; the store decides
//     when to call them. list.go passes lists of tags on. referrers.go answers with the
//     lists of referrers that the store has.
//   - fetch.go: content that no client asks for is fetched for the daemon itself.
//   - memory.go: large manifests and lists are read and decoded a few at a time.
//   - response.go: the content is sent through a recorder, which notes the status and
//     the bytes. A file reaches net/http as an *os.File, so that sendfile is used.
//   - errors.go: an error of a handler becomes a status, a code and headers. No other
//     file decides these. If the headers have been sent, the connection is cut instead.
//   - log.go, metrics.go, trace.go and traffic.go note each response when it is over.
//
// The package starts no goroutines. Its locks, of what metrics.go, memory.go and refusals.go
// keep, are each taken alone.
package proxy
