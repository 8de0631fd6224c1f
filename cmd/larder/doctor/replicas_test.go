package doctor_test

import (
	"strings"
	"testing"

	"github.com/larder-registry/larder/cmd/larder/doctor"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestDoctorOffersReplicas(t *testing.T) {
	const (
		own, other = "123456789012", "210987654321"
		west       = own + ".dkr.ecr.us-west-2.amazonaws.com"
		elsewhere  = other + ".dkr.ecr.eu-west-1.amazonaws.com"
	)
	rule := func(account, region string, prefixes ...string) ecrtest.ReplicationRule {
		return ecrtest.ReplicationRule{Destinations: []ecrtest.Destination{{Account: account, Region: region}}, Prefixes: prefixes}
	}
	for name, test := range map[string]struct {
		rules          []ecrtest.ReplicationRule
		keys           string // of ecr in the configuration
		status         doctor.Status
		detail, advice string
	}{
		"nothing is replicated": {nil, "", doctor.Skipped, "ECR replicates this nowhere", ""},
		"to a region":           {[]ecrtest.ReplicationRule{rule(own, "us-west-2")}, "", doctor.OK, "to " + west, "ecr: {replicas: [us-west-2]}"},
		"to another account":    {[]ecrtest.ReplicationRule{rule(other, "eu-west-1")}, "", doctor.OK, "to " + elsewhere, "ecr: {replicas: [" + elsewhere + "]}"},
		"this repository": {
			[]ecrtest.ReplicationRule{rule(own, "us-west-2", "team/", "base/"), rule(own, "eu-west-1", "infra/")}, "",
			doctor.OK, "to " + west + " (team/*, base/*)", "ecr: {replicas: [us-west-2]}",
		},
		"by two rules": {
			[]ecrtest.ReplicationRule{rule(own, "us-west-2", "team/a"), rule(own, "us-west-2", "team/")}, "",
			doctor.OK, west + " (team/a*), " + west + " (team/*)", "ecr: {replicas: [us-west-2]}",
		},
		"as configured": {[]ecrtest.ReplicationRule{rule(own, "us-west-2")}, "replicas: [us-west-2], ", doctor.OK, west + ", as configured", ""},
		"to one more": {
			[]ecrtest.ReplicationRule{rule(own, "us-west-2"), rule(own, "eu-west-1")}, "replicas: [us-west-2], ",
			doctor.OK, "to " + west + ", ", "ecr: {replicas: [eu-west-1]}",
		},
		"not where it is configured": {
			[]ecrtest.ReplicationRule{rule(own, "us-west-2", "infra/")}, "replicas: [us-west-2], ",
			doctor.Warning, "nowhere, and not to " + west, "Remove it from ecr.replicas",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSetup(t, ecrtest.Options{})
			c.fake.SetReplication(test.rules...)
			c.host = strings.Replace(c.host, "ecr: {", "ecr: {"+test.keys, 1)
			steps, well := c.examine()
			s := steps["replicas"]
			if s.Status != test.status || !strings.Contains(s.Detail, test.detail) || !strings.Contains(s.Advice, test.advice) || (s.Advice == "") != (test.advice == "") || !well {
				t.Errorf("all went well: %t, %+v; want %q and %q", well, s, test.detail, test.advice)
			}
		})
	}
}
