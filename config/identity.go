package config

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The forms are those of the API references of IAM (roles) and STS (AssumeRole).
var (
	roleForm        = regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([!-~]{1,510}/)?[\w+=,.@-]{1,64}$`)
	externalIDForm  = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
	sessionNameForm = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

// profile accepts what can be the name of a section in AWS's shared files.
func profile(to *string) func(*yaml.Node) error {
	return check(to, "the name of a profile, in quotes if it is a number", func(s string) bool {
		return strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r == ']' || r < ' ' || r == 0x7f })
	})
}

func roleARN(to *string) func(*yaml.Node) error {
	return check(to, "a role such as arn:aws:iam::123456789012:role/pull", roleForm.MatchString)
}

func externalID(to *string) func(*yaml.Node) error {
	return check(to, "an external ID of 2 to 1224 letters, digits and _+=,.@:/-, in quotes if it is a number", func(s string) bool {
		return 2 <= len(s) && len(s) <= 1224 && externalIDForm.MatchString(s)
	})
}

func sessionName(to *string) func(*yaml.Node) error {
	return check(to, "a session name of 2 to 64 letters, digits and _+=,.@-", sessionNameForm.MatchString)
}
