package ecrtest_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestDescribeRepositoriesReportsTagMutability(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now})
	describe := func(name string, m ecrtest.TagMutability) types.Repository {
		t.Helper()
		if err := server.SetTagMutability(name, m); err != nil {
			t.Fatal(err)
		}
		r := types.Repository{
			RepositoryArn:  aws.String("arn:aws:ecr:us-east-1:123456789012:repository/" + name),
			RegistryId:     aws.String("123456789012"),
			RepositoryName: aws.String(name),
			RepositoryUri:  aws.String("123456789012.dkr.ecr.us-east-1.amazonaws.com/" + name),
			CreatedAt:      aws.Time(clock.Now()),
		}
		for _, pattern := range m.Except {
			r.ImageTagMutabilityExclusionFilters = append(r.ImageTagMutabilityExclusionFilters,
				types.ImageTagMutabilityExclusionFilter{FilterType: "WILDCARD", Filter: aws.String(pattern)})
		}
		return r
	}
	want := []types.Repository{
		describe("fixed", ecrtest.TagMutability{Immutable: true}),
		describe("fixed/but", ecrtest.TagMutability{Immutable: true, Except: []string{"latest", "dev-*"}}),
		describe("free", ecrtest.TagMutability{}),
		describe("free/but", ecrtest.TagMutability{Except: []string{"v*"}}),
	}
	want[0].ImageTagMutability = types.ImageTagMutabilityImmutable
	want[1].ImageTagMutability = types.ImageTagMutabilityImmutableWithExclusion
	want[2].ImageTagMutability = types.ImageTagMutabilityMutable
	want[3].ImageTagMutability = types.ImageTagMutabilityMutableWithExclusion
	for _, test := range []struct {
		names []string
		want  []types.Repository
	}{
		{nil, want},
		{[]string{"free", "fixed/but"}, []types.Repository{want[2], want[1]}},
	} {
		out, err := describer(c).DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{RepositoryNames: test.names})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, out.Repositories, cmpopts.IgnoreUnexported(
			types.Repository{}, types.ImageTagMutabilityExclusionFilter{})); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.names, diff)
		}
	}
}

func TestDescribeRepositoriesNeedsPermission(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	for i := range 150 {
		if err := server.SetTagMutability(fmt.Sprintf("repo-%03d", i), ecrtest.TagMutability{}); err != nil {
			t.Fatal(err)
		}
	}
	key := server.AWS().AddUser(ownUser, ecrtest.Policy{
		ecrtest.Allow("ecr:DescribeRepositories").On("arn:aws:ecr:us-east-1:123456789012:repository/repo-00*")})
	own := ecr.NewFromConfig(sdk(t, server, key.Environment()))
	for _, test := range []struct {
		names []string
		code  string
	}{
		{nil, "AccessDeniedException"},
		{[]string{"repo-001"}, ""},
		{[]string{"repo-001", "repo-011"}, "AccessDeniedException"},
		{[]string{"repo-00x"}, "RepositoryNotFoundException"},
	} {
		_, err := own.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{RepositoryNames: test.names})
		if test.code != "" {
			wantAPIError(t, err, test.code)
		} else if err != nil {
			t.Error(err)
		}
	}
	server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow("ecr:*")})
	var pages []int
	for p := ecr.NewDescribeRepositoriesPaginator(own, &ecr.DescribeRepositoriesInput{}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, len(out.Repositories))
	}
	if diff := cmp.Diff([]int{100, 50}, pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestImmutableTagDoesNotMove(t *testing.T) {
	server := ecrtest.New(ecrtest.Options{})
	add := func(tag, raw string) error {
		_, err := server.AddManifest("app", tag, ocispec.MediaTypeImageManifest, []byte(raw))
		return err
	}
	for _, test := range []struct {
		m     ecrtest.TagMutability
		tag   string
		moves bool
	}{
		{ecrtest.TagMutability{}, "v1", true},
		{ecrtest.TagMutability{Immutable: true}, "v1", false},
		{ecrtest.TagMutability{Immutable: true, Except: []string{"dev-*"}}, "dev-1", true},
		{ecrtest.TagMutability{Immutable: true, Except: []string{"dev-*"}}, "v1", false},
		{ecrtest.TagMutability{Except: []string{"v*"}}, "v1", false},
		{ecrtest.TagMutability{Except: []string{"v*"}}, "dev-1", true},
	} {
		if err := server.SetTagMutability("app", ecrtest.TagMutability{}); err != nil {
			t.Fatal(err)
		}
		if err := add(test.tag, "{}"); err != nil {
			t.Fatal(err)
		}
		if err := server.SetTagMutability("app", test.m); err != nil {
			t.Fatal(err)
		}
		if err := add(test.tag, `{"other":1}`); (err == nil) != test.moves {
			t.Errorf("%v: moving %s: %v", test.m, test.tag, err)
		}
		if err := add(test.tag+"-new", "{}"); err != nil {
			t.Errorf("%v: a new tag: %v", test.m, err)
		}
	}
}

func TestPullIsRecordedOnceADay(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now, TokenTTL: 1000 * time.Hour})
	if _, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	recorded := func() *time.Time {
		t.Helper()
		out, err := describer(c).DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: aws.String("team/app")})
		if err != nil {
			t.Fatal(err)
		}
		return out.ImageDetails[0].LastRecordedPullTime
	}
	wantStatus(t, c.registry(http.MethodHead, "/v2/team/app/manifests/v1"), http.StatusOK)
	if got := recorded(); got != nil {
		t.Errorf("a HEAD was recorded as a pull, at %v", got)
	}
	first := clock.Now()
	for _, test := range []struct {
		after time.Duration
		want  time.Time
	}{
		{0, first},
		{23 * time.Hour, first},
		{time.Hour, first.Add(24 * time.Hour)},
		{30 * time.Hour, first.Add(54 * time.Hour)},
	} {
		clock.Advance(test.after)
		manifestOf(t, c, "v1")
		if got := recorded(); got == nil || !got.Equal(test.want) {
			t.Errorf("recorded %v, want %v", got, test.want)
		}
	}
}
