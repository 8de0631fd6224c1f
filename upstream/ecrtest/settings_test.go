package ecrtest_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestPullsOfExcludedPrincipalsAreNotRecorded(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	desc, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	const role = "arn:aws:iam::123456789012:role/nodes/pull"
	server.AWS().AddRole(ecrtest.Role{ARN: role, Policy: ecrtest.Policy{ecrtest.Allow("*")}})
	session, err := server.AWS().Assume(role, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	user := server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow("*")})
	for _, test := range []struct {
		key      ecrtest.Key
		excluded string
		recorded bool
	}{
		{user, ownUser, false},
		{session, role, false},
		{user, role, true},
		{session, ownUser, true},
	} {
		server.SetPullTimeExclusions(test.excluded)
		if err := server.SetImageState("team/app", desc.Digest, ecrtest.ImageState{}); err != nil {
			t.Fatal(err)
		}
		c.password = tokenOf(t, sdk(t, server, test.key.Environment()))
		wantStatus(t, c.registry(http.MethodGet, "/v2/team/app/manifests/v1"), http.StatusOK)
		out, err := describer(c).DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: aws.String("team/app")})
		if err != nil {
			t.Fatal(err)
		}
		if got := out.ImageDetails[0].LastRecordedPullTime != nil; got != test.recorded {
			t.Errorf("%s pulls, and %s is excluded: recorded %t, want %t", test.key.AccessKeyID, test.excluded, got, test.recorded)
		}
	}
}

func TestPullTimeExclusionsAreThoseOfTheCallersAccount(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	var want []string
	for i := range 150 {
		want = append(want, fmt.Sprintf("arn:aws:iam::123456789012:role/role-%03d", i))
	}
	server.SetPullTimeExclusions(want...)
	list := func(user string, actions ...string) (all []string, pages int, err error) {
		key := server.AWS().AddUser(user, ecrtest.Policy{ecrtest.Allow(actions...)})
		own := ecr.NewFromConfig(sdk(t, server, key.Environment()))
		in := new(ecr.ListPullTimeUpdateExclusionsInput)
		for {
			out, err := own.ListPullTimeUpdateExclusions(t.Context(), in)
			if err != nil {
				return nil, 0, err
			}
			all = append(all, out.PullTimeUpdateExclusions...)
			if pages++; out.NextToken == nil {
				break
			}
			in.NextToken = out.NextToken
		}
		return all, pages, nil
	}
	if all, pages, err := list(ownUser, "ecr:*"); err != nil || pages != 2 || !slices.Equal(all, want) {
		t.Errorf("got %d in %d pages, %v; want %d in 2", len(all), pages, err, len(want))
	}
	if all, _, err := list(pullerUser, "ecr:*"); err != nil || len(all) != 0 {
		t.Errorf("another account's caller got %d, %v", len(all), err)
	}
	_, _, err := list(ownUser, "ecr:DescribeImages")
	wantAPIError(t, err, "AccessDeniedException")
}

func TestDescribeRegistryReturnsTheReplicationRules(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	server.SetReplication(
		ecrtest.ReplicationRule{Destinations: []ecrtest.Destination{{Account: "123456789012", Region: "us-west-2"}, {Account: "210987654321", Region: "eu-west-1"}}},
		ecrtest.ReplicationRule{Destinations: []ecrtest.Destination{{Account: "123456789012", Region: "eu-west-1"}}, Prefixes: []string{"team/"}},
	)
	describe := func(user string, actions ...string) (*ecr.DescribeRegistryOutput, error) {
		key := server.AWS().AddUser(user, ecrtest.Policy{ecrtest.Allow(actions...)})
		return ecr.NewFromConfig(sdk(t, server, key.Environment())).DescribeRegistry(t.Context(), nil)
	}
	out, err := describe(ownUser, "ecr:*")
	if err != nil {
		t.Fatal(err)
	}
	own, other := aws.String("123456789012"), aws.String("210987654321")
	want := &types.ReplicationConfiguration{Rules: []types.ReplicationRule{
		{Destinations: []types.ReplicationDestination{{Region: aws.String("us-west-2"), RegistryId: own}, {Region: aws.String("eu-west-1"), RegistryId: other}}},
		{
			Destinations:      []types.ReplicationDestination{{Region: aws.String("eu-west-1"), RegistryId: own}},
			RepositoryFilters: []types.RepositoryFilter{{Filter: aws.String("team/"), FilterType: types.RepositoryFilterTypePrefixMatch}},
		},
	}}
	if diff := cmp.Diff(want, out.ReplicationConfiguration, cmpopts.IgnoreUnexported(types.ReplicationConfiguration{},
		types.ReplicationRule{}, types.ReplicationDestination{}, types.RepositoryFilter{})); diff != "" || *out.RegistryId != *own {
		t.Errorf("of %s (-want +got):\n%s", *out.RegistryId, diff)
	}
	out, err = describe(pullerUser, "ecr:*")
	if err != nil || len(out.ReplicationConfiguration.Rules) != 0 || *out.RegistryId != *other {
		t.Errorf("for another account's caller: %+v, %v", out, err)
	}
	_, err = describe(ownUser, "ecr:DescribeImages")
	wantAPIError(t, err, "AccessDeniedException")
}
