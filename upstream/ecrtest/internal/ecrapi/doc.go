// Package ecrapi is the ECR API of the fake ECR, and that of ECR Public, in the
// protocol AWS JSON 1.1.
//
// [API.Serve] passes a call that was read through the frontend, has its signature
// verified and counted, and hands it as a request to the function of its operation.
// An operation on a repository of another account finds the registry through the
// [Directory].
package ecrapi
