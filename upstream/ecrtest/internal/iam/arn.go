package iam

import "strings"

// Partition returns the partition that a region is in, such as aws or aws-cn.
func Partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	default:
		return "aws"
	}
}

// AccountOf returns the account in an ARN, or "" if arn is not an ARN.
func AccountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// nameIn returns the name at the end of an ARN, after its last slash.
func nameIn(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
