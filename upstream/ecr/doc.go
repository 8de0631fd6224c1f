// Package ecr has Amazon ECR's own ways: tokens from AWS's API, the identity that
// they are for, ECR Public, lifecycle policies, tag mutability, and repositories
// that ECR's pull-through cache rules fill.
//
// A [Client] has what registries share: API clients and tokens, by identity and
// region. A [Registry] gives requests to one private registry their credentials:
//
//	Registry.Authorize → tokens.get: the token, which a goroutine renews at half its life
//	Registry.Refused   → tokens.renew: an answer that says expired; the token is renewed here
//
// ECR Public authenticates by challenges (package auth). [PublicLogins] has the
// login for it.
//
// # Locks
//
// Client.mu guards the map of regions. It may be held while tokens.mu is taken.
// tokens.mu, session.mu and PublicLogins.mu are taken alone. No lock is held while AWS is
// asked, or whether a registry is offline.
package ecr
