package config

import (
	"strings"
	"testing"
)

func TestHostGrammar(t *testing.T) {
	for host, want := range map[string]bool{
		"docker.io":                      true,
		"registry":                       true,
		"registry:5000":                  true,
		"a-b.example.com":                true,
		"10.0.0.5":                       true,
		"10.0.0.5:5000":                  true,
		"[::1]":                          true,
		"[2001:db8::1]:5000":             true,
		"1password.example":              true,
		"":                               false,
		"::1":                            false,
		"[::1":                           false,
		"[::1]5000":                      false,
		"[fe80::1%eth0]":                 false,
		"[127.0.0.1]":                    false,
		"127.1":                          false,
		"2130706433":                     false,
		"010.0.0.1":                      false,
		"registry:05000":                 false,
		"registry:+1":                    false,
		"registry:65536":                 false,
		"a_b.example.com":                false,
		"-a.example.com":                 false,
		"a-.example.com":                 false,
		strings.Repeat("a", 63):          true,
		strings.Repeat("a", 64):          false,
		strings.Repeat("a.", 126) + "a":  true,
		strings.Repeat("a.", 127) + "a":  false,
		"*.example.com":                  false,
		"registry.example.com/team":      false,
		"https://registry.example.com":   false,
		"registry.example.com:5000/team": false,
	} {
		if got := isHost(host); got != want {
			t.Errorf("isHost(%q) = %t, want %t", host, got, want)
		}
	}
}

func TestRegionOfECRHosts(t *testing.T) {
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":                    "us-east-1",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":           "us-gov-west-1",
		"123456789012.dkr-ecr.eu-west-1.on.aws":                           "eu-west-1",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":                "cn-north-1",
		"123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn": "cn-northwest-1",
		"*.dkr.ecr.us-east-1.amazonaws.com":                               "us-east-1",
		"123456789012.dkr.ecr.*.amazonaws.com":                            "*",
		"public.ecr.aws":                                                  "us-east-1",
		"ecr-public.aws.com":                                              "us-east-1",
		"1234.dkr.ecr.us-east-1.amazonaws.com":                            "",
		"team.dkr.ecr.us-east-1.amazonaws.com":                            "",
		"123456789012.dkr.ecr.amazonaws.com":                              "",
		"123456789012.dkr.ecr.us.east.amazonaws.com":                      "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com:443":                "",
		"docker.io": "",
	} {
		if got, ok := ecrRegion(host); got != want || ok != (want != "") {
			t.Errorf("ecrRegion(%q) = %q, %t; want %q", host, got, ok, want)
		}
	}
}
