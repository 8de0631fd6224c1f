// Package upstream talks to registries: requests, redirects, retries and
// tokens. It knows the OCI distribution API as a client, and Amazon ECR's ways
// of it; it does not know that there is a cache.
//
// Credentials go to exactly the scheme, host and port they are for, and no
// connection is made to a loopback, link-local or metadata address unless the
// upstream's own endpoint is such an address.
//
// Errors are fs.ErrNotExist where the upstream says that there is no such
// thing, and fs.ErrPermission where it refuses; see [Error] for the rest.
package upstream
