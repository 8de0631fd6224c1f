// Package server is the servers that the bench measures. A Program knows how to start one: Larder, nginx, distribution's
// registry, the bare Go server, and the upstream itself, which runs anyway. A Server is one that runs, in a folder of its
// own, which it loses when it is closed.
package server
