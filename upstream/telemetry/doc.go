// Package telemetry counts and traces what is sent to upstreams.
//
// [Telemetry] has the instruments; an [Upstream] has them for one upstream. Before
// a request is sent, it passes through [Upstream.Begin], and its answer through
// [Call.End]. deploy/METRICS.md says what each metric is for.
//
// Telemetry has one lock, which is never held while a callback runs.
package telemetry
