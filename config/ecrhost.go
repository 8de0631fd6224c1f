package config

import (
	"slices"
	"strings"
)

// An ecrForm is a form of the names of ECR's registries, which are an account,
// service, a region and domain: 123456789012 .dkr.ecr. us-east-1 .amazonaws.com.
type ecrForm struct {
	service, domain string
}

// ecrForms returns every form of private ECR registry: each partition's, and
// the FIPS and dual-stack ones where AWS has them. See "Amazon ECR endpoints
// and quotas" in the AWS General Reference, and the same list in
// amazon-ecr-credential-helper.
func ecrForms() []ecrForm {
	return []ecrForm{
		{".dkr.ecr.", ".amazonaws.com"}, // commercial regions and GovCloud
		{".dkr.ecr-fips.", ".amazonaws.com"},
		{".dkr-ecr.", ".on.aws"}, // the same, dual-stack
		{".dkr-ecr-fips.", ".on.aws"},
		{".dkr.ecr.", ".amazonaws.com.cn"}, // China
		{".dkr-ecr.", ".on.amazonwebservices.com.cn"},
		{".dkr.ecr.", ".amazonaws.eu"}, // European Sovereign Cloud
		{".dkr.ecr.", ".c2s.ic.gov"},   // the isolated partitions
		{".dkr.ecr.", ".sc2s.sgov.gov"},
		{".dkr.ecr.", ".cloud.adc-e.uk"},
		{".dkr.ecr.", ".csp.hci.ic.gov"},
	}
}

// ecrPublicHosts returns the hosts of ECR Public, the second of them dual-stack.
func ecrPublicHosts() []string {
	return []string{"public.ecr.aws", "ecr-public.aws.com"}
}

// ecrPublicRegion is where ECR Public's API is, wherever one asks from.
const ecrPublicRegion = "us-east-1"

// pattern returns the pattern of all hosts of this form.
func (f ecrForm) pattern() string { return "*" + f.service + "*" + f.domain }

// ecrRegion returns the region that is in the name of an ECR host. Of a pattern
// for ECR hosts it returns what stands in that place, stars included. For other
// hosts it reports false.
func ecrRegion(host string) (string, bool) {
	if slices.Contains(ecrPublicHosts(), host) {
		return ecrPublicRegion, true
	}
	_, _, region, ok := splitECRHost(host)
	return region, ok
}

// inRegion returns the registry of the same account in another region, by the
// same form of name. Of a pattern it returns a pattern. For hosts that are not
// private ECR registries it reports false.
func inRegion(host, region string) (string, bool) {
	account, form, _, ok := splitECRHost(host)
	return account + form.service + region + form.domain, ok
}

// splitECRHost takes the name of a private registry, or a pattern for some,
// apart.
func splitECRHost(host string) (account string, form ecrForm, region string, ok bool) {
	for _, form := range ecrForms() {
		account, rest, _ := strings.Cut(host, form.service)
		region, ok := strings.CutSuffix(rest, form.domain)
		if ok && region != "" && !strings.Contains(region, ".") && isAccount(account) {
			return account, form, region, true
		}
	}
	return "", ecrForm{}, "", false
}

// isAccount reports whether s is an AWS account's number, or a pattern of some.
func isAccount(s string) bool {
	return strings.Trim(s, "0123456789*") == "" && (len(s) == 12 || isPattern(s))
}
