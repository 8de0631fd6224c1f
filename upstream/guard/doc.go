// Package guard decides where connections of an upstream may go, and makes them.
//
// An upstream at a public or private address cannot lead, by a redirect, a token
// service or DNS, to a loopback, link-local or metadata address. One whose own
// endpoint is such an address may lead to addresses of the same class. A URL is
// checked by [Transport.Check] before it is used, and each address again when it
// is dialled, after name resolution.
//
// [Transports] and each outage list below it have one lock of their own, and no
// two are held together.
package guard
