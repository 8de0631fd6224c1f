// Package denial reads AWS's text for a request that IAM policies do not allow,
// and says which policy statement would allow it. It is pure.
package denial
