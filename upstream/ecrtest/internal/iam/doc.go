// Package iam identifies callers and decides about their actions. It holds the users,
// roles, sessions and access keys of AWS accounts, and evaluates the policies that
// allow or deny actions.
//
// A request arrives with an access key. [Accounts.Authenticate] returns the
// [Principal] that the key belongs to, and [Principal.Denied] evaluates the
// principal's policy together with that of the resource. Roles are assumed by
// [Accounts.Begin], for principals that [Role.Admits].
package iam
