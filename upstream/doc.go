// Package upstream talks to registries: it sends requests with credentials, follows
// redirects, tries again, and asks replicas. It knows the OCI distribution API as a
// client; it does not know that there is a cache.
//
// Credentials go to exactly the scheme, host and port that they are for. No
// connection is made to a loopback, link-local or metadata address unless the
// upstream's own endpoint is such an address.
//
// # The way of a request
//
//	Client.Registry         the Registry of a host, by its Config
//	Registry.Manifest       or List, BlobSize, OpenBlob: bounds the time; asks again for an image that ECR imports
//	group                   the registry itself, then its replicas (a member each)
//	documents, blobs        one manifest or list in whole; one range of a blob
//	site.follow             goes where the registry redirects to
//	site.fetch              asks another server; as an anonymous guest if it is a registry that challenges
//	site.ask                adds credentials; has them renewed if the answer refuses them
//	throttle.do             waits for the request's turn; sends it again if it was too many
//	site.send               one answer, within the timeout; the request may be sent twice
//	site.roundTrip          one round trip
//
// Where to look:
//
//   - A status other than the wanted one becomes an error in documents.fetchOnce and
//     contentOf (blob.go), by [reply.Read]. [reply.Error.Is] says that a 404 is
//     fs.ErrNotExist. group.isFinal says that a replica's 404 does not count.
//   - site.ask sees that a token was refused. ecr.Registry.Refused and
//     auth.Challenged.Refused renew it.
//   - [guard.Transport] decides whether a connection may be made.
//   - An upstream that is offline is refused at the beginning of Registry's methods, and
//     once more in site.roundTrip, which also ends what runs when it goes offline.
//
// # Below it
//
//	auth       challenges, logins, Docker's configuration, bearer tokens
//	ecr        Amazon ECR: API, tokens, identities, Public, lifecycle, pull-through
//	dial       look-ups and connections
//	guard      where connections may go
//	link       shares one line among all upstreams, clients first
//	offline    keeps requests from upstreams that the operator has declared offline
//	pace       limits, outages, breakers, backoff
//	patience   how long an answer is waited for, and whether a server is silent
//	probe      connections taken apart, for "larder doctor"
//	redact     takes secrets out of errors
//	reply      answers that are errors
//	telemetry  metrics and traces
//	name, lifecycle  pure values
//
// # Locks
//
// Client.mu guards the registries; while a registry is made, Options.Lookup is called
// and the locks of guard.Transports, ecr.Client, pace.Limits and telemetry are taken
// under it. Lookup must not call the client. outcome.mu and
// locations.mu are taken alone. No lock is held while anything is sent.
package upstream
