// Package doctor finds out what works between this machine and the upstreams, step
// by step: the configuration, the cache folder, proxies, then for an upstream its
// connections, AWS's APIs, the clock, credentials, a token, and the beginning of an
// image. It needs no daemon, and leaves a running one alone: it changes nothing,
// but for the small object with which it tries a bucket that this node may fill.
//
// [Examine] takes the steps in that order. A step whose needs failed is skipped and
// names the step that failed, so that the first failure is what to fix.
package doctor
