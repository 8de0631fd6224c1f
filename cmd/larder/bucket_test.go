package main

import (
	"testing"

	"github.com/larder-registry/larder/upstream/bucket"
)

func TestStatsTellOfTheBucket(t *testing.T) {
	for want, b := range map[string]bucket.Status{
		"s3://images/; 1.5 KiB taken": {Bucket: "s3://images/", Taken: 1500},
		"s3://images/; 0 B taken, 2.0 KiB put in 3 objects, 1 wait, 2 objects wrong; putting fails: access denied": {
			Bucket: "s3://images/", Writes: true, Given: 2000, Put: 3, Queued: 1, Wrong: 2, Writing: "access denied",
		},
		"s3://images/; 0 B taken; reading fails: it did not answer in time": {Bucket: "s3://images/", Reading: "it did not answer in time"},
	} {
		if got := bucketOf(b); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
