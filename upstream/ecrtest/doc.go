// Package ecrtest is an Amazon ECR registry inside this process, for tests, the demo
// and benchmarks: the Docker Registry API, the ECR API, the storage that blobs are
// redirected to, and the parts of IAM and STS that decide who may pull. It can also
// be ECR Public, and several registries can share one [AWS].
//
// It answers as the real ECR was observed to answer, including the texts that
// clients must recognise: tokens that expire, manifest GETs without
// Docker-Content-Digest, blobs behind signed URLs on another host name.
// [Server.Inject] makes requests fail, and [Server.Stats] says what was requested and
// sent.
//
// Contents are random access and may be generated while they are read, so that an
// image of many gigabytes costs neither memory nor disk.
//
// # The way of a request
//
// [Server.Registry] finds the [Server] that the Host of a request names, or the one
// of the region that a call is signed for, and passes the request to one of its
// faces: internal/distribution for /v2/ and /token/, internal/ecrapi for the ECR API,
// internal/sts for STS and for the credentials of containers and instances.
// [Server.Storage] is internal/storage. Each face passes the request through
// internal/frontend, which counts it, delays it and lets faults act on it. Then it
// asks internal/awsapi or internal/token who the caller is, internal/iam whether the
// caller may, and internal/registry for the content.
//
// # Locks
//
// No lock is held while another one is taken, but for that of the clock, which comes
// last: any lock may be held while Options.Now is called. [Running] holds its
// own lock while it starts and stops, and no handler takes that.
package ecrtest
