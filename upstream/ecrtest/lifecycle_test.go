package ecrtest_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// describer returns the client of the SDK with the credentials of the default user.
func describer(c *client) *ecr.Client { return c.api("AKIDLARDERTEST", "us-east-1") }

func TestGetLifecyclePolicyReturnsTheTextThatWasSet(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	c.addBlob(ecrtest.Bytes(nil)) // creates the repository
	get := func(account, repo string) (string, error) {
		out, err := describer(c).GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{
			RegistryId: aws.String(account), RepositoryName: aws.String(repo)})
		if err != nil {
			return "", err
		}
		return *out.LifecyclePolicyText, nil
	}
	_, err := get("123456789012", "team/app")
	wantAPIError(t, err, "LifecyclePolicyNotFoundException")
	if err := server.SetLifecyclePolicy("team/app", `{"rules":[]}`); err != nil {
		t.Fatal(err)
	}
	if text, err := get("123456789012", "team/app"); err != nil || text != `{"rules":[]}` {
		t.Errorf("got %q, %v", text, err)
	}
	_, err = get("210987654321", "team/app")
	wantAPIError(t, err, "RepositoryNotFoundException")
	_, err = get("123456789012", "team/other")
	wantAPIError(t, err, "RepositoryNotFoundException")
}
