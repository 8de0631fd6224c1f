package config

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	lowerCase = "abcdefghijklmnopqrstuvwxyz"
	digits    = "0123456789"
	// wordChars is \w of the API references of IAM and STS.
	wordChars = lowerCase + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "_"
)

func consistsOf(s, characters string) bool { return strings.Trim(s, characters) == "" }

// profile accepts the name of a section in AWS's shared files.
func profile(to *string) setter {
	return valid(to, "the name of a profile, in quotes if it is a number", func(s string) bool {
		return strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r == ']' || isControl(r) })
	})
}

func roleARN(to *string) setter {
	return valid(to, "a role such as arn:aws:iam::123456789012:role/pull", isRoleARN)
}

// isRoleARN reports whether s has the form
// arn:<partition>:iam::<account>:role/[<path>/]<name> (IAM API reference, Role).
func isRoleARN(s string) bool {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || !isPartition(parts[1]) || parts[2] != "iam" || parts[3] != "" {
		return false
	}
	account, resource := parts[4], parts[5]
	role, ok := strings.CutPrefix(resource, "role/")
	if !ok || len(account) != 12 || !consistsOf(account, digits) {
		return false
	}
	if i := strings.LastIndexByte(role, '/'); i >= 0 {
		path := role[:i]
		notPrintable := func(r rune) bool { return r < '!' || r > '~' }
		if path == "" || len(path) > 510 || strings.ContainsFunc(path, notPrintable) {
			return false
		}
		role = role[i+1:]
	}
	return 1 <= len(role) && len(role) <= 64 && consistsOf(role, wordChars+"+=,.@-")
}

// isPartition reports whether s can be a partition of AWS: aws, aws-cn, ...
func isPartition(s string) bool {
	rest, ok := strings.CutPrefix(s, "aws")
	if !ok || rest == "" {
		return ok
	}
	for i, word := range strings.Split(rest, "-") {
		if (i == 0) != (word == "") || !consistsOf(word, lowerCase) {
			return false
		}
	}
	return true
}

// externalID accepts an ID of AssumeRole (STS API reference).
func externalID(to *string) setter {
	return valid(to, "an external ID of 2 to 1224 letters, digits and _+=,.@:/-, in quotes if it is a number", func(s string) bool {
		return 2 <= len(s) && len(s) <= 1224 && consistsOf(s, wordChars+"+=,.@:/-")
	})
}

// sessionName accepts a name of AssumeRole (STS API reference).
func sessionName(to *string) setter {
	return valid(to, "a session name of 2 to 64 letters, digits and _+=,.@-", func(s string) bool {
		return 2 <= len(s) && len(s) <= 64 && consistsOf(s, wordChars+"+=,.@-")
	})
}

// username accepts a user name of basic authentication, in which a colon ends it
// (RFC 7617, section 2). Its errors do not show the name: what follows the colon
// is likely to be a password.
func username(to *string) setter {
	return func(value *yaml.Node) error {
		s, err := text(value, "a user name, in quotes if it is a number")
		if err != nil {
			return err
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r == ':' || isControl(r) }) {
			return errors.New("expected a user name without colons and control characters")
		}
		*to = s
		return nil
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
