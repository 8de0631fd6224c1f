package name

import (
	"regexp"
	"strings"
)

// ECR is what the host of an ECR registry tells.
type ECR struct {
	// Account is the registry's AWS account; "" for ECR Public.
	Account string
	// Region is the region of the registry and of its tokens. For ECR Public it is
	// the region of its API.
	Region string
	// Partition is the group of regions, as ARNs name it: "aws", "aws-cn", ...
	Partition string
	// FIPS and DualStack are the kind of the endpoint. Other AWS services are
	// reached through endpoints of the same kind.
	FIPS, DualStack bool
	// Public tells ECR Public from private ECR.
	Public bool
}

// ecrPublicRegion is the only region with an API of ECR Public.
const ecrPublicRegion = "us-east-1"

// ecrForm is a form of the hosts of private registries: an account, service, a
// region and domain, such as 123456789012 .dkr.ecr. us-east-1 .amazonaws.com.
type ecrForm struct {
	service, domain string
	partition       string
	fips, dualStack bool
}

// ecrForms are all forms of private registries. They are those of "Amazon ECR
// endpoints and quotas" in the AWS General Reference, and of AWS's own credential
// helper and kubelet credential provider. AWS GovCloud (US) shares the forms of
// the commercial regions; no other partition has FIPS endpoints.
var ecrForms = []ecrForm{
	{".dkr.ecr.", ".amazonaws.com", "aws", false, false},
	{".dkr.ecr-fips.", ".amazonaws.com", "aws", true, false},
	{".dkr-ecr.", ".on.aws", "aws", false, true},
	{".dkr-ecr-fips.", ".on.aws", "aws", true, true},
	{".dkr.ecr.", ".amazonaws.com.cn", "aws-cn", false, false},
	{".dkr-ecr.", ".on.amazonwebservices.com.cn", "aws-cn", false, true},
	{".dkr.ecr.", ".amazonaws.eu", "aws-eusc", false, false},
	{".dkr.ecr.", ".c2s.ic.gov", "aws-iso", false, false},
	{".dkr.ecr.", ".sc2s.sgov.gov", "aws-iso-b", false, false},
	{".dkr.ecr.", ".cloud.adc-e.uk", "aws-iso-e", false, false},
	{".dkr.ecr.", ".csp.hci.ic.gov", "aws-iso-f", false, false},
}

// ecrPublic are the hosts of ECR Public.
var ecrPublic = []struct {
	host      string
	dualStack bool
}{
	{"public.ecr.aws", false},
	{"ecr-public.aws.com", true},
}

// ParseECR recognises the host of an ECR registry, in lower case, of every
// partition and kind.
func ParseECR(host string) (ECR, bool) { return parseECR(host, false) }

// ECR is [ParseECR] for patterns. Account and Region may contain stars.
func (p HostPattern) ECR() (ECR, bool) { return parseECR(string(p), true) }

func parseECR(host string, stars bool) (ECR, bool) {
	for _, public := range ecrPublic {
		if host == public.host {
			return ECR{Region: ecrPublicRegion, Partition: "aws", Public: true, DualStack: public.dualStack}, true
		}
	}
	form, account, region, ok := cutECR(host, stars)
	if !ok {
		return ECR{}, false
	}
	return ECR{
		Account:   account,
		Region:    region,
		Partition: partitionOf(region, form.partition),
		FIPS:      form.fips,
		DualStack: form.dualStack,
	}, true
}

// InRegion returns the host of the same account's registry in another region, by
// the same form of name. It reports false for hosts that are not private ECR
// registries.
func InRegion(host, region string) (string, bool) { return inRegion(host, region, false) }

// InRegion is [InRegion] for patterns.
func (p HostPattern) InRegion(region string) (HostPattern, bool) {
	host, ok := inRegion(string(p), region, true)
	return HostPattern(host), ok
}

func inRegion(host, region string, stars bool) (string, bool) {
	form, account, _, ok := cutECR(host, stars)
	if !ok {
		return "", false
	}
	return account + form.service + region + form.domain, true
}

// cutECR returns the form of the host of a private registry, and what stands in
// the places of the account and the region.
func cutECR(host string, stars bool) (form ecrForm, account, region string, ok bool) {
	for _, form := range ecrForms {
		account, rest, _ := strings.Cut(host, form.service)
		region, ok := strings.CutSuffix(rest, form.domain)
		if ok && isAccount(account, stars) && isRegion(region, stars) {
			return form, account, region, true
		}
	}
	return ecrForm{}, "", "", false
}

// ECRHosts returns patterns and hosts that match all hosts of ECR: one pattern for
// each form of private registries, and the hosts of ECR Public.
func ECRHosts() []HostPattern {
	var all []HostPattern
	for _, form := range ecrForms {
		all = append(all, HostPattern("*"+form.service+"*"+form.domain))
	}
	for _, public := range ecrPublic {
		all = append(all, HostPattern(public.host))
	}
	return all
}

// IsRegion reports whether s has the form of the name of an AWS region, such as
// eu-west-1, us-gov-east-1 or eusc-de-east-1.
func IsRegion(s string) bool { return isRegion(s, false) }

// isAccount reports whether s is the number of an AWS account. With stars it may
// be a pattern for several.
func isAccount(s string, stars bool) bool {
	if stars && strings.Contains(s, "*") {
		return strings.Trim(s, "0123456789*") == ""
	}
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// regionForm is the form of all names of regions in the SDK's table of partitions. The
// labels of other services of AWS, such as s3, do not have it: anybody may create the
// bucket that 123456789012.dkr.ecr.s3.amazonaws.com is.
var regionForm = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+){1,2}-[1-9][0-9]?$`)

// isRegion is [IsRegion]. With stars, s may be a pattern for several.
func isRegion(s string, stars bool) bool {
	if stars && strings.Contains(s, "*") {
		return isLabel(s, stars) && strings.ToLower(s) == s
	}
	return regionForm.MatchString(s)
}

// Partition returns the partition of a region, such as "aws-cn". Credentials and
// STS belong to one partition.
func Partition(region string) string { return partitionOf(region, "aws") }

// partitionOf returns the partition of a region by its name, as the SDK's table of
// partitions does, or else the partition of the host's form.
func partitionOf(region, ofForm string) string {
	if ofForm != "aws" {
		return ofForm
	}
	for _, p := range []struct{ prefix, partition string }{
		{"cn-", "aws-cn"},
		{"us-gov-", "aws-us-gov"},
		{"eusc-", "aws-eusc"},
		{"us-iso-", "aws-iso"},
		{"us-isob-", "aws-iso-b"},
		{"eu-isoe-", "aws-iso-e"},
		{"us-isof-", "aws-iso-f"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return "aws"
}
