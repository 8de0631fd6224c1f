package bucket_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/bucket/buckettest"
)

// try tries a store, which may fail.
func try(t *testing.T, name string, write bool, fault func(buckettest.Request) buckettest.Fault) (bucket.Check, *buckettest.Store) {
	t.Helper()
	store := buckettest.Start(t)
	store.Fail(fault)
	endpoint, err := url.Parse(store.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	cfg := aws.Config{Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}
	at := bucket.Place{Bucket: name, Region: "us-east-1", Endpoint: endpoint, PathStyle: true}
	return bucket.Try(t.Context(), at, cfg, transport, write), store
}

// denies denies requests of one method.
func denies(method string) func(buckettest.Request) buckettest.Fault {
	return func(r buckettest.Request) buckettest.Fault {
		if r.Method == method {
			return buckettest.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
		}
		return buckettest.Fault{}
	}
}

func TestTryTellsWhatDoesNotWork(t *testing.T) {
	if c, _ := try(t, buckettest.Bucket, true, denies("")); c.Reached != nil || c.Read != nil || c.Written != nil || !c.Heeds || c.Ahead.Abs().Minutes() > 1 {
		t.Errorf("a store that works: %+v", c)
	}
	if c, _ := try(t, "another", true, denies("")); c.Reached == nil {
		t.Errorf("a bucket that is not there: %+v", c)
	}
	if c, _ := try(t, buckettest.Bucket, true, denies(http.MethodHead)); !errors.Is(c.Reached, bucket.ErrDenied) {
		t.Errorf("a bucket that may not be listed: %+v", c)
	}
	if c, _ := try(t, buckettest.Bucket, true, denies(http.MethodGet)); !errors.Is(c.Read, bucket.ErrDenied) {
		t.Errorf("a bucket that may not be read: %+v", c)
	}
	if c, _ := try(t, buckettest.Bucket, true, denies(http.MethodPut)); c.Read != nil || !errors.Is(c.Written, bucket.ErrDenied) {
		t.Errorf("a bucket that may not be written: %+v", c)
	}
	ignores := func(buckettest.Request) buckettest.Fault { return buckettest.Fault{Unconditional: true} }
	if c, _ := try(t, buckettest.Bucket, true, ignores); c.Written != nil || c.Heeds {
		t.Errorf("a store that ignores conditions: %+v", c)
	}
}

func TestTryOfAReaderPutsNothing(t *testing.T) {
	if c, store := try(t, buckettest.Bucket, false, denies(http.MethodPut)); c.Read != nil || c.Written != nil || len(store.Requests(http.MethodPut)) > 0 {
		t.Errorf("%+v, %v", c, store.Requests(http.MethodPut))
	}
}
