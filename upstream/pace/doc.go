// Package pace decides when a request may be sent: it slows down for upstreams
// that throttle, avoids addresses and registries that fail, and spaces attempts.
//
//   - [Limiter] spaces the requests to one target after a refusal, and serves the
//     waiting ones by priority. [Limits] keeps one for each target.
//   - [RateLimit] is an upstream's own statement about its limit on pulls.
//   - [Outages] makes connections to an unreachable address fail at once.
//   - [Breaker] takes a registry that fails out of use while another can answer.
//   - [NewBackoff] gives the pauses of all of them.
//
// A request to an upstream waits in [Limiter.Wait], is sent, and its answer is
// reported by [Limiter.Succeeded] or [Limiter.Refused]. Below it, each new
// connection is made by [Outages.Dial].
//
// Each type has one lock of its own, no two of them are ever held together, and
// none is held while anything is sent or dialled.
package pace
