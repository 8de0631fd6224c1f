package ecrtest

import (
	"cmp"
	"time"
)

// publicRegion is the only region that ECR Public's API is in.
const publicRegion = "us-east-1"

// Options describes a [Server]. The zero value is usable.
type Options struct {
	Account string // of twelve digits; "123456789012" if empty
	Region  string // "us-east-1" if empty

	// Public makes it ECR Public, which belongs to no account and has one region.
	Public bool

	// AWS is the state to share with other registries: [Server.AWS] of one of them. If
	// it is nil, a new one is made from AccessKey, SecretKey and Now. Otherwise
	// AccessKey and SecretKey are ignored.
	AWS *AWS
	// AccessKey is an AWS access key of the user "larder" of the account, who may do
	// everything; "AKIDLARDERTEST" if empty. Signatures by it, or by any other key,
	// are not checked.
	AccessKey string
	// SecretKey signs tokens and URLs; "secret" if empty. They stay valid in another
	// server, or process, that has the same secret.
	SecretKey string

	TokenTTL  time.Duration // how long a token is valid; 12 h if 0
	BearerTTL time.Duration // how long a bearer token of ECR Public is valid; 1 h if 0
	URLTTL    time.Duration // how long a signed URL is valid, rounded up to seconds; 1 h if 0

	// Now is the clock of tokens, URLs, pushes and the Date of answers. If it is nil,
	// the clock is that of AWS, or time.Now.
	Now func() time.Time
	// MaxSkew limits the difference between the date of a call's signature and the
	// clock; 0 means any. AWS allows five minutes.
	MaxSkew time.Duration

	// NoReferrers makes it a registry from before the distribution specification 1.1:
	// it has no /referrers/, and AddImage lists an artifact under a tag, as clients
	// then do.
	NoReferrers bool

	// TLS makes [Start] and [StartAt] serve over TLS, with a certificate of a new CA: see
	// [Running.CA].
	TLS bool

	BytesPerSecond int64         // of each connection to storage; no limit if 0
	Latency        time.Duration // before each answer
}

// withDefaults returns the options with everything set but AWS.
func (o Options) withDefaults() Options {
	if o.Public {
		o.Region = publicRegion
	}
	o.Region = cmp.Or(o.Region, "us-east-1")
	o.TokenTTL = cmp.Or(o.TokenTTL, 12*time.Hour)
	o.BearerTTL = cmp.Or(o.BearerTTL, time.Hour)
	o.URLTTL = cmp.Or(o.URLTTL, time.Hour)
	if aws := o.AWS; aws != nil {
		o.Account = cmp.Or(o.Account, aws.account)
		o.SecretKey = string(aws.secret)
		if o.Now == nil {
			o.Now = aws.now
		}
	}
	o.Account = cmp.Or(o.Account, "123456789012")
	o.AccessKey = cmp.Or(o.AccessKey, "AKIDLARDERTEST")
	o.SecretKey = cmp.Or(o.SecretKey, "secret")
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
