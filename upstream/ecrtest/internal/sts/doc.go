// Package sts gives out sessions of roles: through the API of AWS STS, and through
// the endpoints at which containers and instances find credentials.
//
// [API.Serve] answers a call that was read, in the AWS query protocol;
// [Credentials.ServeHTTP] answers the requests of the AWS SDK to EKS Pod Identity,
// ECS and the instance metadata service. Both begin sessions by [iam.Accounts.Begin].
package sts
