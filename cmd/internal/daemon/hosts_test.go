package daemon

import (
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

// The packages config and upstream do not know each other, and both must know the forms of ECR's hosts: what is served
// without a configuration is authenticated as ECR, and the other way round.
func TestHostsServedByDefaultAreThoseRecognisedAsECR(t *testing.T) {
	cfg, err := config.Load("")
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"public.ecr.aws", "ecr-public.aws.com", "ecr-public.aws", "gallery.ecr.aws"}
	for _, service := range []string{".dkr.ecr.", ".dkr-ecr.", ".dkr.ecr-fips.", ".dkr-ecr-fips.", ".dkr.ecr-dev.", ".ecr."} {
		for _, domain := range []string{
			"amazonaws.com", "on.aws", "amazonaws.com.cn", "on.amazonwebservices.com.cn", "amazonaws.eu", "on.amazonaws.eu",
			"c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov", "on.amazonaws.com", "example.com",
		} {
			hosts = append(hosts, "123456789012"+service+"us-east-1."+domain)
		}
	}
	recognised := 0
	for _, host := range hosts {
		_, served := cfg.Match(host)
		_, isECR := upstream.ParseECRHost(host)
		if served != isECR {
			t.Errorf("%s: served is %t, recognised is %t", host, served, isECR)
		}
		if isECR {
			recognised++
		}
	}
	if recognised != 13 { // 11 forms of private registries, and two hosts of ECR Public
		t.Errorf("%d hosts are recognised, want 13", recognised)
	}
}
