package upstream

import (
	"regexp"
	"strings"
)

// ECRHost is what the name of an ECR registry says.
type ECRHost struct {
	// Account is that of the registry; "" for ECR Public, which is of nobody.
	Account string
	// Region is that of the registry and of its tokens. For ECR Public it is the
	// one where its API is.
	Region string
	// Partition is the group of regions, as ARNs name it: "aws", "aws-cn", ...
	Partition string
	// FIPS and DualStack are the endpoint's kinds. AWS's other services are asked
	// by endpoints of the same kind.
	FIPS, DualStack bool
	// Public tells ECR Public from private ECR.
	Public bool
}

// ecrPublicRegion is where ECR Public's API is, wherever one asks from.
const ecrPublicRegion = "us-east-1"

// ecrHostForm is a private registry's host. Its domain is checked by ecrDomain.
var ecrHostForm = regexp.MustCompile(`^(\d{12})\.dkr([.-])ecr(-fips)?\.([a-z0-9][a-z0-9-]*)\.([a-z0-9.-]+)$`)

// ParseECRHost recognises the host of an ECR registry, in lower case, of every
// partition and kind. The forms are those of AWS's own credential helper and the
// cloud provider's kubelet plug-in, and of "Amazon ECR endpoints and quotas" in
// the AWS General Reference.
func ParseECRHost(host string) (ECRHost, bool) {
	switch host {
	case "public.ecr.aws":
		return ECRHost{Region: ecrPublicRegion, Partition: "aws", Public: true}, true
	case "ecr-public.aws.com":
		return ECRHost{Region: ecrPublicRegion, Partition: "aws", Public: true, DualStack: true}, true
	}
	m := ecrHostForm.FindStringSubmatch(host)
	if m == nil {
		return ECRHost{}, false
	}
	h := ECRHost{Account: m[1], Region: m[4], FIPS: m[3] != "", DualStack: m[2] == "-"}
	partition, dualStack, ok := ecrDomain(m[5])
	if !ok || dualStack != h.DualStack || h.FIPS && partition != "aws" {
		return ECRHost{}, false
	}
	if h.Partition = partition; partition == "aws" {
		h.Partition = partitionOf(h.Region) // GovCloud shares its domains with the commercial regions
	}
	return h, true
}

// ecrDomain knows the domains of registries. FIPS endpoints are in those of the
// commercial regions and GovCloud alone.
func ecrDomain(domain string) (partition string, dualStack, ok bool) {
	switch domain {
	case "amazonaws.com":
		return "aws", false, true
	case "on.aws":
		return "aws", true, true
	case "amazonaws.com.cn":
		return "aws-cn", false, true
	case "on.amazonwebservices.com.cn":
		return "aws-cn", true, true
	case "amazonaws.eu":
		return "aws-eusc", false, true
	case "c2s.ic.gov":
		return "aws-iso", false, true
	case "sc2s.sgov.gov":
		return "aws-iso-b", false, true
	case "cloud.adc-e.uk":
		return "aws-iso-e", false, true
	case "csp.hci.ic.gov":
		return "aws-iso-f", false, true
	}
	return "", false, false
}

// partitionOf tells a region's partition by its name, as the SDK's table of
// partitions does. Credentials are of one partition, and so is STS.
func partitionOf(region string) string {
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
