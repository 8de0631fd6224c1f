// Package distribution is the Docker Registry API of the fake ECR (/v2/), and the
// token endpoint of ECR Public (/token/).
//
// [Handler.ServeHTTP] reads the path into a route and passes the request through the
// frontend. The admission then says whose token the request has: ECR's basic
// credentials, or the bearer tokens of ECR Public. Then the registry returns the
// repository if the caller may act in it, a pull-through rule may import the tag, and
// the answer is written: a manifest, a redirect to storage, or a list.
package distribution
