// Package storage is the S3 bucket that the fake ECR keeps blobs in, and the host
// that serves them by signed URLs.
//
// [Bucket.Put] adds a content under its digest. The registry gives clients
// [Bucket.SignedURL] of an [Object]; a GET of that URL reaches [Bucket.ServeHTTP],
// which finds the object by its path, checks the signature (signer), selects the
// requested range and streams it at the bandwidth (sender).
package storage
