package config_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

func TestMistakesInRulesHaveTheirLine(t *testing.T) {
	file := write(t, `tags: {ttl: soon}
lifecycle:
  - match: docker.io/library/*
    rules: []
  - match: docker.io/*
    rules:
      - rulePriority: 1
        selection:
          tagStatus: any
          countType: imageCountMoreThan
          countNumber: 0
      - rulePriority: 1
        "a\nb": 1
`)
	_, err := config.Load(file)
	want := config.Mistakes{
		{file, 1, "tags.ttl", `expected a duration such as 90s or 12h, got "soon"`},
		{file, 4, "lifecycle[0].rules", "0 rules; a policy has 1 to 50"},
		{file, 7, "lifecycle[1].rules[0].action", "missing"},
		{file, 11, "lifecycle[1].rules[0].selection.countNumber", "0 is not positive"},
		{file, 12, "lifecycle[1].rules[1].selection", "missing"},
		{file, 12, "lifecycle[1].rules[1].action", "missing"},
		{file, 13, `lifecycle[1]."rules[1].a\nb"`, "unknown key"},
	}
	var got config.Mistakes
	errors.As(err, &got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

func TestFirstLocalRulesThatMatchApply(t *testing.T) {
	var c config.Config
	matches := []string{"docker.io/library/*", "docker.io/*", "*.dkr.ecr.*.amazonaws.com/team/*", "*/shared/*"}
	for i, match := range matches {
		p, ok := name.ParsePattern(match)
		if !ok {
			t.Fatalf("%q is not a pattern", match)
		}
		text := fmt.Sprintf(`{"rules":[{"rulePriority":%d,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},`+
			`"action":{"type":"expire"}}]}`, i+1)
		c.Lifecycle = append(c.Lifecycle, config.LocalRules{Match: p, Policy: policy(t, text)})
	}
	for repository, want := range map[[2]string]int{
		{"docker.io", "library/busybox"}:                                0,
		{"Docker.io", "library/busybox"}:                                0,
		{"docker.io", "grafana/grafana"}:                                1,
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "team/a/b"}:    2,
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "shared/base"}: 3,
		{"127.0.0.1:5000", "shared/base"}:                               3,
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "other/a"}:     -1,
		{"quay.io", "library/busybox"}:                                  -1,
		{"not a host", "shared/base"}:                                   -1,
	} {
		got, ok := c.LocalPolicy(repository[0], repository[1])
		if ok != (want >= 0) || ok && !reflect.DeepEqual(got, c.Lifecycle[want].Policy) {
			t.Errorf("%v: %+v, %t; want the rules for %d", repository, got, ok, want)
		}
	}
}

func TestLifecycleOfECRIsAHintByDefault(t *testing.T) {
	for value, want := range map[string][2]bool{
		"":        {true, false},
		"hint":    {true, false},
		"enforce": {true, true},
		"off":     {false, false},
	} {
		text := "upstreams: [{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com}]"
		if value != "" {
			text = "upstreams: [{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, ecr: {lifecycle: " + value + "}}]"
		}
		c, err := config.Load(write(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if u := c.Upstreams[0]; u.HeedsLifecycle() != want[0] || u.EnforcesLifecycle() != want[1] {
			t.Errorf("%q: heeded %t, enforced %t", value, u.HeedsLifecycle(), u.EnforcesLifecycle())
		}
	}
}
