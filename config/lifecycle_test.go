package config

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMistakesInRulesAreReportedWhereTheyAre(t *testing.T) {
	file := write(t, `tags: {ttl: soon}
lifecycle:
  - match: docker.io/library/*
    rules: []
  - match: docker.io/*
    rules:
      - rulePriority: 1
        selection:
          tagStatus: any
          countNumber: 0
      - rulePriority: 1
        "a\nb": 1
`)
	check := func(document []byte) Mistakes {
		if string(document) == `{"rules":[]}` {
			return Mistakes{{Problem: "too few"}}
		}
		return Mistakes{
			{Key: "rules[0].selection.countNumber", Problem: "0 is not positive"},
			{Key: "rules[0].action", Problem: "missing"},
			{Key: "rules[1].rulePriority", Problem: "given already"},
			{Key: "rules[1].a\nb", Problem: "unknown"},
		}
	}
	_, err := LoadChecked(file, check)
	want := Mistakes{
		{file, 1, "tags.ttl", `expected a duration such as 90s or 12h, got "soon"`},
		{file, 4, "lifecycle[0].rules", "too few"},
		{file, 7, "lifecycle[1].rules[0].action", "missing"},
		{file, 10, "lifecycle[1].rules[0].selection.countNumber", "0 is not positive"},
		{file, 11, "lifecycle[1].rules[1].rulePriority", "given already"},
		{file, 12, `lifecycle[1]."rules[1].a\nb"`, "unknown"},
	}
	var got Mistakes
	errors.As(err, &got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

func TestFirstLocalRulesThatMatchCount(t *testing.T) {
	c := &Config{Lifecycle: []LocalRules{
		{Match: "docker.io/library/*"},
		{Match: "docker.io/*"},
		{Match: "*.dkr.ecr.*.amazonaws.com/team/*"},
		{Match: "*/shared/*"},
	}}
	for name, want := range map[[2]string]int{
		{"docker.io", "library/busybox"}:                                0,
		{"Docker.io", "library/busybox"}:                                0,
		{"docker.io", "grafana/grafana"}:                                1,
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "team/a/b"}:    2,
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "shared/base"}: 3,
		{"127.0.0.1:5000", "shared/base"}:                               3,
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "other/a"}:     -1,
		{"quay.io", "library/busybox"}:                                  -1,
	} {
		got, ok := c.LocalRules(name[0], name[1])
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%v: %d, want %d", name, got, want)
		}
	}
}

func TestLifecycleOfECRIsHintedUnlessSaidOtherwise(t *testing.T) {
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
		c, err := Load(write(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if u := c.Upstreams[0]; u.HeedsLifecycle() != want[0] || u.EnforcesLifecycle() != want[1] {
			t.Errorf("%q: heeded %t, enforced %t", value, u.HeedsLifecycle(), u.EnforcesLifecycle())
		}
	}
}
