package iam_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// What the bucket is asked for: GetObject and HeadObject need s3:GetObject, and s3:ListBucket so that a missing object is no
// denial; PutObject and all of an upload in parts but its end after a failure need s3:PutObject (Amazon S3 user guide,
// "Required permissions for Amazon S3 API operations").
func TestPoliciesOfTheBucketAllowItsRequests(t *testing.T) {
	for name, want := range map[string][]string{
		"bucket-read.json":  {"s3:GetObject", "s3:ListBucket"},
		"bucket-write.json": {"s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject"},
	} {
		got := actions(document(t, name))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s allows %v, want %v", name, got, want)
		}
	}
}

func TestObjectsOfTheBucketExpire(t *testing.T) {
	raw, err := os.ReadFile("lifecycle/bucket.json")
	if err != nil {
		t.Fatal(err)
	}
	var lifecycle struct {
		Rules []struct {
			Status     string
			Expiration struct{ Days int }
			Abort      struct{ DaysAfterInitiation int } `json:"AbortIncompleteMultipartUpload"`
		}
	}
	if err := json.Unmarshal(raw, &lifecycle); err != nil {
		t.Fatal(err)
	}
	if rules := lifecycle.Rules; len(rules) != 1 || rules[0].Status != "Enabled" || rules[0].Expiration.Days != 14 || rules[0].Abort.DaysAfterInitiation != 1 {
		t.Errorf("the lifecycle is %+v", lifecycle)
	}
}
