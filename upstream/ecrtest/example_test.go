package ecrtest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// Two accounts in a region: a role of one may pull from the repository of the other
// once the policy of the repository allows it.
func Example() {
	ours, err := ecrtest.Start(ecrtest.Options{Account: "111111111111"})
	if err != nil {
		panic(err)
	}
	defer ours.Close()
	theirs, err := ecrtest.Start(ecrtest.Options{AWS: ours.AWS(), Account: "222222222222"})
	if err != nil {
		panic(err)
	}
	defer theirs.Close()
	if _, err := theirs.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
		panic(err)
	}

	const node = "arn:aws:iam::111111111111:role/node"
	ours.AWS().AddRole(ecrtest.Role{ARN: node, Policy: ecrtest.Policy{ecrtest.Allow(ecrtest.PullActions()...)}})
	key, err := ours.AWS().Assume(node, "example")
	if err != nil {
		panic(err)
	}
	pull := func() {
		fmt.Println(get(theirs.Endpoint+"/v2/team/app/manifests/v1", tokenFor(ours, key)))
	}
	pull()
	if err := theirs.SetRepositoryPolicy("team/app", ecrtest.Policy{ecrtest.Allow("ecr:BatchGetImage").To(node)}); err != nil {
		panic(err)
	}
	pull()
	// Output:
	// 403 User: arn:aws:sts::111111111111:assumed-role/node/example is not authorized to perform: ecr:BatchGetImage on resource: arn:aws:ecr:us-east-1:222222222222:repository/team/app because no resource-based policy allows the ecr:BatchGetImage action
	// 200 {}
}

// tokenFor gets a token from the API and returns the value of Authorization.
func tokenFor(server *ecrtest.Running, key ecrtest.Key) string {
	transport := &http.Transport{DisableKeepAlives: true}
	out, err := ecr.New(ecr.Options{
		BaseEndpoint: aws.String(server.Endpoint),
		Region:       "us-east-1",
		Credentials:  credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, key.SessionToken),
		HTTPClient:   &http.Client{Transport: buffered{transport}, Timeout: patience},
	}).GetAuthorizationToken(context.Background(), nil)
	if err != nil {
		panic(err)
	}
	return "Basic " + *out.AuthorizationData[0].AuthorizationToken
}

// get returns the status of an answer and its error message, or its body.
func get(url, authorization string) string {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", authorization)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	text := string(body)
	if _, message, ok := strings.Cut(text, `"message":"`); ok {
		text, _, _ = strings.Cut(message, `"`)
	}
	return fmt.Sprint(resp.StatusCode, " ", text)
}
