package name_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

// ecrHosts are all forms, of every partition.
var ecrHosts = map[string]name.ECR{
	"123456789012.dkr.ecr.eu-central-1.amazonaws.com":             {Account: "123456789012", Region: "eu-central-1", Partition: "aws"},
	"000000000001.dkr.ecr.ap-southeast-5.amazonaws.com":           {Account: "000000000001", Region: "ap-southeast-5", Partition: "aws"},
	"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com":            {Account: "123456789012", Region: "us-gov-west-1", Partition: "aws-us-gov"},
	"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":           {Account: "123456789012", Region: "us-east-1", Partition: "aws", FIPS: true},
	"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":       {Account: "123456789012", Region: "us-gov-west-1", Partition: "aws-us-gov", FIPS: true},
	"123456789012.dkr-ecr.us-east-1.on.aws":                       {Account: "123456789012", Region: "us-east-1", Partition: "aws", DualStack: true},
	"123456789012.dkr-ecr.us-gov-east-1.on.aws":                   {Account: "123456789012", Region: "us-gov-east-1", Partition: "aws-us-gov", DualStack: true},
	"123456789012.dkr-ecr-fips.us-west-2.on.aws":                  {Account: "123456789012", Region: "us-west-2", Partition: "aws", FIPS: true, DualStack: true},
	"123456789012.dkr-ecr-fips.us-gov-east-1.on.aws":              {Account: "123456789012", Region: "us-gov-east-1", Partition: "aws-us-gov", FIPS: true, DualStack: true},
	"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            {Account: "123456789012", Region: "cn-north-1", Partition: "aws-cn"},
	"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": {Account: "123456789012", Region: "cn-north-1", Partition: "aws-cn", DualStack: true},
	"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            {Account: "123456789012", Region: "eusc-de-east-1", Partition: "aws-eusc"},
	"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":               {Account: "123456789012", Region: "us-iso-east-1", Partition: "aws-iso"},
	"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           {Account: "123456789012", Region: "us-isob-east-1", Partition: "aws-iso-b"},
	"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          {Account: "123456789012", Region: "eu-isoe-west-1", Partition: "aws-iso-e"},
	"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":         {Account: "123456789012", Region: "us-isof-south-1", Partition: "aws-iso-f"},
	"public.ecr.aws":     {Region: "us-east-1", Partition: "aws", Public: true},
	"ecr-public.aws.com": {Region: "us-east-1", Partition: "aws", Public: true, DualStack: true},
}

// notECR are hosts that must not receive an ECR token.
var notECR = []string{
	"",
	"registry-1.docker.io",
	"12345678901.dkr.ecr.us-east-1.amazonaws.com",
	"1234567890123.dkr.ecr.us-east-1.amazonaws.com",
	"12345678901a.dkr.ecr.us-east-1.amazonaws.com",
	"x.123456789012.dkr.ecr.us-east-1.amazonaws.com",
	"123456789012.dkr.ecr.us-east-1.amazonaws.com.",
	"123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
	"123456789012.dkr.ecr.us-east-1.amazonaws.com:443",
	"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example",
	"123456789012.dkr.ecr.us-east-1.amazonaws.com.eu",
	"123456789012.dkr.ecr.us-east-1.amazonaws.org",
	"123456789012.dkr.ecr.us-east-1xamazonaws.com",
	"123456789012.dkr.ecr.us-east-1.evil.amazonaws.com",
	"123456789012.dkr.ecr.us-east-1.on.amazonaws.com",
	"123456789012.dkr.ecr..amazonaws.com",
	"123456789012.dkr.ecr.-east.amazonaws.com",
	"123456789012.dkr.ecr.east-.amazonaws.com",
	"123456789012.dkr.ecr.*.amazonaws.com",
	"*.dkr.ecr.us-east-1.amazonaws.com",
	"123456789012.dkr.ecr.US-EAST-1.amazonaws.com",
	"123456789012.dkr.ecr.amazonaws.com",
	"123456789012.dkr_ecr.us-east-1.amazonaws.com",
	"123456789012.dkr.ecr-dev.us-east-1.amazonaws.com",
	"123456789012.ecr.us-east-1.amazonaws.com",
	// Each kind has its own domains.
	"123456789012.dkr-ecr.us-east-1.amazonaws.com",
	"123456789012.dkr.ecr.us-east-1.on.aws",
	"123456789012.dkr.ecr.us-east-1.on-aws",
	"123456789012.dkr.ecr.cn-north-1.on.amazonwebservices.com.cn",
	"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com",
	"123456789012.dkr-ecr.cn-north-1.amazonaws.com.cn",
	"123456789012.dkr.ecr-fips.cn-north-1.amazonaws.com.cn",
	"123456789012.dkr.ecr-fips.eusc-de-east-1.amazonaws.eu",
	"api.ecr.us-east-1.amazonaws.com",
	"ecr.us-east-1.api.aws",
	"prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com",
	"x.public.ecr.aws",
	"123456789012.dkr.ecr.s3.amazonaws.com", // a bucket that anybody may create
	"123456789012.dkr.ecr.s3-us-west-2.amazonaws.com",
	"123456789012.dkr.ecr.lambda-url.amazonaws.com",
	"123456789012.dkr.ecr.us-east.amazonaws.com",
	"123456789012.dkr.ecr.us-east-01.amazonaws.com",
	"123456789012.dkr.ecr.us--east-1.amazonaws.com",
	"public.ecr.aws.",
	"public.ecr.aws:443",
	"public.ecr.aws.evil.example",
	"gallery.ecr.aws",
	"ecr-public.aws",
	"ecr-public.us-east-1.api.aws",
}

func TestECRHostTellsAccountRegionAndKind(t *testing.T) {
	for host, want := range ecrHosts {
		got, ok := name.ParseECR(host)
		if !ok || got != want {
			t.Errorf("%s: %+v, %t; want %+v", host, got, ok, want)
		}
	}
}

func TestOtherHostsAreNotECR(t *testing.T) {
	for _, host := range notECR {
		if got, ok := name.ParseECR(host); ok {
			t.Errorf("%q is recognised as %+v", host, got)
		}
	}
}

func TestDefaultPatternsMatchExactlyTheHostsOfECR(t *testing.T) {
	served := func(host string) bool {
		return slices.ContainsFunc(name.ECRHosts(), func(p name.HostPattern) bool { return p.Match(host) })
	}
	for host := range ecrHosts {
		if !served(host) {
			t.Errorf("no pattern matches %s", host)
		}
	}
	for _, host := range notECR {
		if served(host) {
			t.Errorf("a pattern matches %s", host)
		}
	}
	for _, service := range []string{".dkr.ecr.", ".dkr-ecr.", ".dkr.ecr-fips.", ".dkr-ecr-fips.", ".dkr.ecr-dev.", ".ecr."} {
		for _, domain := range []string{
			"amazonaws.com", "on.aws", "amazonaws.com.cn", "on.amazonwebservices.com.cn", "amazonaws.eu", "on.amazonaws.eu",
			"c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov", "on.amazonaws.com", "example.com",
		} {
			host := "123456789012" + service + "us-east-1." + domain
			if _, isECR := name.ParseECR(host); isECR != served(host) {
				t.Errorf("%s: recognised is %t, matched is %t", host, isECR, served(host))
			}
		}
	}
}

func TestPatternOfECRHostsTellsItsRegion(t *testing.T) {
	for p, want := range map[name.HostPattern]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":     "us-east-1",
		"123456789012.dkr-ecr.eu-west-1.on.aws":            "eu-west-1",
		"*.dkr.ecr.us-east-1.amazonaws.com":                "us-east-1",
		"1234*.dkr.ecr.us-east-1.amazonaws.com":            "us-east-1",
		"123456789012.dkr.ecr.*.amazonaws.com":             "*",
		"123456789012.dkr.ecr.us-*.amazonaws.com":          "us-*",
		"public.ecr.aws":                                   "us-east-1",
		"team*.dkr.ecr.us-east-1.amazonaws.com":            "",
		"1234.dkr.ecr.us-east-1.amazonaws.com":             "",
		"123456789012.dkr.ecr.us.east.amazonaws.com":       "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com:443": "",
		"docker.io": "",
	} {
		if got, ok := p.ECR(); got.Region != want || ok != (want != "") {
			t.Errorf("%s: %+v, %t; want the region %q", p, got, ok, want)
		}
	}
}

func TestRegistryInAnotherRegionHasTheSameFormOfName(t *testing.T) {
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":      "123456789012.dkr.ecr.us-west-2.amazonaws.com",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com": "123456789012.dkr.ecr-fips.us-west-2.amazonaws.com",
		"123456789012.dkr-ecr.us-east-1.on.aws":             "123456789012.dkr-ecr.us-west-2.on.aws",
		"public.ecr.aws":                                    "",
		"docker.io":                                         "",
	} {
		if got, ok := name.InRegion(host, "us-west-2"); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t; want %q", host, got, ok, want)
		}
	}
	const pattern name.HostPattern = "*.dkr.ecr.*.amazonaws.com"
	if got, ok := pattern.InRegion("us-west-2"); got != "*.dkr.ecr.us-west-2.amazonaws.com" || !ok {
		t.Errorf("%s: %q, %t", pattern, got, ok)
	}
}

func FuzzParseECR(f *testing.F) {
	for host := range ecrHosts {
		f.Add(host)
	}
	for _, host := range notECR {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, ok := name.ParseECR(host)
		if !ok {
			if got != (name.ECR{}) {
				t.Errorf("%q is not a host of ECR, but the result is %+v", host, got)
			}
			return
		}
		if got.Public {
			if got.Account != "" || got.Region != "us-east-1" {
				t.Errorf("%q: %+v", host, got)
			}
			return
		}
		if len(got.Account) != 12 || strings.Trim(got.Account, "0123456789") != "" {
			t.Errorf("%q: account %q", host, got.Account)
		}
		// The region becomes a part of the API's host name.
		if got.Region == "" || strings.Trim(got.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("%q: region %q", host, got.Region)
		}
		if !strings.HasPrefix(host, got.Account+".dkr") || !strings.Contains(host, "."+got.Region+".") {
			t.Errorf("%q is not made of %+v", host, got)
		}
	})
}
