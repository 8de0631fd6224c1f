// Package daemon is a Larder that runs: it puts the cache, the upstreams and the
// proxy together as a configuration says, and serves them. "larder serve" and the
// demo start it.
//
// [New] opens everything, in this order: telemetry, the client of the upstreams,
// the cache folder, the listeners, the proxy, the upkeep (package upkeep).
// [Daemon.Serve] then runs one HTTP server for each listener (clients, admin,
// commands) and the upkeep in the background. When its context ends, the upkeep ends
// and the servers drain, and Serve waits for both. [Daemon.Close] closes the folder and
// the upstreams and sends the last telemetry.
//
// Other commands use the rest: [Dial] reaches the daemon of a cache folder,
// [OpenFolder] opens the folder if no daemon runs, and [Lookup] is how a
// configuration translates to upstreams.
package daemon
