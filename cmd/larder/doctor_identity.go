package main

import (
	"context"
	"fmt"
	"time"

	"github.com/larder-registry/larder/upstream"
)

// identity says as whom AWS is asked, and looks at the metadata service, which
// is where most credentials on EC2 come from.
func (e *examination) identity(r *upstream.Registry) {
	var found bool
	e.step("credentials", []string{"aws-config"}, func(ctx context.Context) finding {
		caller, err := r.Caller(ctx)
		found = caller.Source != ""
		switch {
		case !found && isDenial(err):
			return wrong(err, adviceOnDenial(err))
		case !found:
			return wrong(err, "Give larder AWS credentials: an instance role, IRSA or Pod Identity, or a profile. On EC2, see the metadata step too.")
		case err != nil && credentialsRefused(err):
			return wrong(fmt.Errorf("those from %s: %w", sourceName(caller.Source), err), adviceOnCredentials(err))
		case err != nil:
			return warn(fmt.Sprintf("those from %s; whose they are is not known: %v", sourceName(caller.Source), err),
				"Pulls do not need STS, unless a role is assumed. If that fails too, see the sts steps.")
		}
		detail := fmt.Sprintf("%s, from %s", caller.ARN, sourceName(caller.Source))
		if !caller.Expires.IsZero() {
			detail += ", good for " + remaining(caller.Expires)
		}
		return finding{status: stepOK, detail: detail}
	})
	e.metadata(found)
}

// sourceName is what the AWS SDK's name for a provider of credentials means.
func sourceName(source string) string {
	for _, s := range []struct{ name, text string }{
		{"EnvConfigCredentials", "environment variables"},
		{"WebIdentityCredentials", "a web identity (IRSA)"},
		{"CredentialsEndpointProvider", "the container's endpoint (Pod Identity, ECS)"},
		{"EC2RoleProvider", "the instance's role"},
		{"AssumeRoleProvider", "a role that is assumed"},
		{"SSOProvider", "IAM Identity Center (SSO)"},
		{"ProcessProvider", "credential_process"},
	} {
		if s.name == source {
			return s.text
		}
	}
	return source // SharedConfigCredentials has the name of the file behind it
}

// metadata finds the containers that the metadata service's answers do not
// reach.
func (e *examination) metadata(found bool) {
	e.step("metadata", nil, func(ctx context.Context) finding {
		ctx, cancel := context.WithTimeout(ctx, min(e.timeout, metadataTimeout))
		defer cancel()
		switch upstream.ProbeMetadata(ctx) {
		case upstream.MetadataAnswers:
			return fine("the instance metadata service answers (IMDSv2)")
		case upstream.MetadataDisabled:
			return notApplicable("AWS_EC2_METADATA_DISABLED is set")
		case upstream.MetadataTooFar:
			const detail = "the instance metadata service can be connected to and does not answer: its hop limit is probably 1, and this is a container with a network of its own"
			const advice = "Run larder on the host's network (hostNetwork: true), use IRSA or Pod Identity, or raise the instance's HttpPutResponseHopLimit to 2."
			if found {
				return warn(detail, advice)
			}
			return finding{stepFailed, detail, advice}
		}
		return notApplicable("there is no instance metadata service here")
	})
}

// metadataTimeout is far more than the service takes, which is on the same host.
const metadataTimeout = 2 * time.Second
