package config_test

import (
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
)

func TestRuleThatKeepsPodsFromStartingIsAMistake(t *testing.T) {
	const upstreams = "upstreams: [{host: \"*.dkr.ecr.*.amazonaws.com\"}, {host: registry.k8s.io}]\n"
	for rules, want := range map[string]string{
		`{match: "*/*", mode: enforce, age: 1h}`:                                                                     "registry.k8s.io/pause",
		`{match: "*.dkr.ecr.*.amazonaws.com/*", mode: enforce, age: 1h}`:                                             "eks/pause",
		`{match: "*.dkr.ecr.*.amazonaws.com/*", mode: warn, age: 1h}`:                                                "",
		`{match: "*.dkr.ecr.*.amazonaws.com/prod/*", mode: enforce, age: 1h}`:                                        "",
		`{match: registry.k8s.io/pause}, {match: "registry.k8s.io/*", mode: enforce, age: 1h}`:                       "",
		`{match: "*.dkr.ecr.*.amazonaws.com/eks/pause"}, {match: "*.*.*.*.amazonaws.com/*", mode: enforce, age: 1h}`: "",
	} {
		_, err := config.Load(write(t, upstreams+"policy: ["+rules+"]\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want+", without which no pod starts")) {
			t.Errorf("%s: got %v, want a mistake about %q", rules, err, want)
		}
	}
}

func TestFirstRuleOfThePolicyThatMatchesCounts(t *testing.T) {
	c, err := config.Load(write(t, "policy: [{match: docker.io/library/redis}, {match: docker.io/library/*, mode: enforce, age: 1h}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]bool{"library/redis": false, "library/busybox": true, "team/app": false} {
		if _, got := c.PolicyOf("index.docker.io", repository); got != want {
			t.Errorf("%s is covered: %v, want %v", repository, got, want)
		}
	}
	if len(c.Warnings) != 0 {
		t.Errorf("the usual order of rules is warned of: %v", c.Warnings)
	}
}

func TestOverlapOfRulesIsWarnedOfWithItsLine(t *testing.T) {
	c, err := config.Load(write(t, "policy:\n  - {match: docker.io/team/*, mode: warn, age: 1h}\n  - {match: docker.io/*/base, mode: warn, age: 1h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || c.Warnings[0].Line != 3 || !strings.Contains(c.Warnings[0].Problem, "overlaps with the rule on line 2") {
		t.Errorf("warnings: %v", c.Warnings)
	}
}
