package ecr

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestTagMutabilityIsTheRepositorysSetting(t *testing.T) {
	server := startECR(t)
	for name, test := range map[string]struct {
		setting ecrtest.TagMutability
		want    map[string]bool
	}{
		"MUTABLE":   {ecrtest.TagMutability{}, map[string]bool{"v1": false, "latest": false}},
		"IMMUTABLE": {ecrtest.TagMutability{Immutable: true}, map[string]bool{"v1": true, "latest": true}},
		"IMMUTABLE_WITH_EXCLUSION": {ecrtest.TagMutability{Immutable: true, Except: []string{"latest", "dev-*", "*-rc*"}}, map[string]bool{
			"v1": true, "latest": false, "latest-2": true, "a-latest": true, "dev-": false, "dev-1": false, "a-dev-1": true,
			"1.0-rc": false, "1.0-rc2": false, "rc1": true,
		}},
		"MUTABLE_WITH_EXCLUSION": {ecrtest.TagMutability{Except: []string{"v*"}}, map[string]bool{"v1": true, "v": true, "latest": false}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := server.SetTagMutability(repo, test.setting); err != nil {
				t.Fatal(err)
			}
			read := func() TagMutability {
				t.Helper()
				all, err := server.TagMutabilities(t.Context(), []string{repo})
				if err != nil || len(all) != 1 {
					t.Fatal(all, err)
				}
				return all[repo]
			}
			m := read()
			for tag, want := range test.want {
				if got := m.Immutable(tag); got != want {
					t.Errorf("%s: immutable is %t, want %t", tag, got, want)
				}
			}
			if again := read(); !again.Equal(m) {
				t.Errorf("read again it is %+v; want %+v", again, m)
			}
			if (m.Equal(TagMutability{})) != (name == "MUTABLE") {
				t.Errorf("%+v equals MUTABLE: wrong", m)
			}
		})
	}
}

// A setting of a later ECR must not make a mutable tag immutable.
func TestTagsAreMutableIfTheSettingIsUnknown(t *testing.T) {
	unknown := []types.ImageTagMutabilityExclusionFilter{
		{FilterType: "WILDCARD", Filter: aws.String("dev-*")},
		{FilterType: "REGULAR_EXPRESSION", Filter: aws.String("v.*")},
	}
	for _, r := range []types.Repository{
		{},
		{ImageTagMutability: "IMMUTABLE_ON_WEEKDAYS"},
		{ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion, ImageTagMutabilityExclusionFilters: unknown},
		{ImageTagMutability: types.ImageTagMutabilityMutableWithExclusion, ImageTagMutabilityExclusionFilters: unknown},
	} {
		if newTagMutability(r).Immutable("v1") {
			t.Errorf("%s with %d filters: v1 is immutable", r.ImageTagMutability, len(r.ImageTagMutabilityExclusionFilters))
		}
	}
}

func TestErrorOfTagMutabilityHasItsKind(t *testing.T) {
	server := startECR(t)
	if _, err := server.TagMutabilities(t.Context(), []string{repo, "team/none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no repository: %v", err)
	}
	server.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeRepositories", Status: http.StatusBadRequest, Code: "AccessDeniedException"})
	if _, err := server.TagMutabilities(t.Context(), []string{repo}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("denied: %v", err)
	}
}

func TestSettingsOfManyRepositoriesAreReadInOneCall(t *testing.T) {
	server := startECR(t)
	var names []string
	for i := range MaxRepositories {
		name := fmt.Sprintf("team/app-%d", i)
		if err := server.SetTagMutability(name, ecrtest.TagMutability{Immutable: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	server.ResetStats()
	all, err := server.TagMutabilities(t.Context(), names)
	if err != nil || len(all) != len(names) {
		t.Fatalf("%d settings, %v", len(all), err)
	}
	for i, name := range names {
		if got := all[name].Immutable("v1"); got != (i%2 == 0) {
			t.Errorf("%s: immutable is %t", name, got)
		}
	}
	if n := server.Stats().Requests[ecrtest.API]; n != 1 {
		t.Errorf("%d calls", n)
	}
}
