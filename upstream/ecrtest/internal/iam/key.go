package iam

import "time"

// Key signs calls: the credentials of a user, or of a session of a role.
type Key struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string    // empty for a user
	Expires         time.Time // by the clock of the server; zero for a user
}

// Environment returns the variables that give the key to the AWS SDK.
func (k Key) Environment() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID":     k.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": k.SecretAccessKey,
		"AWS_SESSION_TOKEN":     k.SessionToken,
	}
}
