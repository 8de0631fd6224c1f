// Package registry is the model of one account's ECR registry in one region:
// repositories with their blobs, manifests, tags, referrers and policies.
//
// A face asks [Registry.Reach] for a repository in which a caller may carry out an
// action, and reads it by the methods of [Repository]. The contents of blobs are in
// the registry's [storage.Bucket]; repositories refer to its objects.
//
// The mutex of a Registry guards the map of repositories, that of a Repository its
// contents. Registry.mu is released before a Repository.mu or the lock of a bucket
// is taken, and no two repositories are locked together.
package registry
