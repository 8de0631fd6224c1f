package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/probe"
)

// checkIdentity examines the identity with which AWS is asked, and the metadata
// service, from which most credentials on EC2 come. It returns the identity as far as it
// is known.
func checkIdentity(e *examination, r *upstream.Registry) (caller ecr.Caller) {
	var found bool
	e.step("credentials", []string{"aws-config"}, func(ctx context.Context) finding {
		var err error
		caller, err = r.ECR().Diagnosis().Caller(ctx)
		found = caller.Source != ""
		switch {
		case !found && isDenial(err):
			return failed(err, adviceOnDenial(err))
		case !found:
			return failed(err, "Give larder AWS credentials: an instance role, IRSA or Pod Identity, or a profile. On EC2, see the metadata step too.")
		case err != nil && credentialsRefused(err):
			return failed(fmt.Errorf("those from %s: %w", sourceName(caller.Source), err), adviceOnCredentials(err))
		case err != nil:
			return warning(fmt.Sprintf("those from %s; their owner is not known: %v", sourceName(caller.Source), err),
				"Pulls do not need STS, unless a role is assumed. If that fails too, see the sts steps.")
		}
		detail := fmt.Sprintf("%s, from %s", caller.ARN, sourceName(caller.Source))
		if !caller.Expires.IsZero() {
			detail += ", good for " + format.Remaining(caller.Expires)
		}
		return finding{status: OK, detail: detail}
	})
	checkMetadata(e, found)
	return caller
}

// sourceName describes a provider of credentials, of which the AWS SDK tells the
// name.
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
	return source // such as SharedConfigCredentials and the name of its file
}

// checkMetadata examines whether the metadata service's answers reach this process:
// often they do not reach containers. found says that there are credentials.
func checkMetadata(e *examination, found bool) {
	e.step("metadata", nil, func(ctx context.Context) finding {
		ctx, cancel := context.WithTimeout(ctx, min(e.timeout, metadataTimeout))
		defer cancel()
		switch probe.FindMetadata(ctx) {
		case probe.MetadataAnswers:
			return passed("the instance metadata service answers (IMDSv2)")
		case probe.MetadataDisabled:
			return skipped("AWS_EC2_METADATA_DISABLED is set")
		case probe.MetadataTooFar:
			const detail = "the instance metadata service accepts connections and does not answer: its hop limit is probably 1, and this is a container with its own network"
			const advice = "Run larder on the host's network (hostNetwork: true), use IRSA or Pod Identity, or raise the instance's HttpPutResponseHopLimit to 2."
			if found {
				return warning(detail, advice)
			}
			return finding{Failed, detail, advice}
		}
		return skipped("there is no instance metadata service here")
	})
}

// metadataTimeout is far more than the service needs, which is on the same host.
const metadataTimeout = 2 * time.Second

// checkAccount examines the login for a registry that is not ECR's.
func checkAccount(e *examination, r *upstream.Registry) {
	e.step("credentials", nil, func(ctx context.Context) finding {
		account, err := r.Diagnosis().Account(ctx)
		switch {
		case err != nil:
			return failed(err, "Fix auth of this upstream in the configuration: the file must be readable, and a helper that it names must be on the PATH of larder.")
		case account == (auth.Account{}):
			return skipped("none are configured: Larder asks anonymously")
		case account.Name == "":
			return passed("a token, from %s", account.Source)
		}
		return passed("%s, from %s", account.Name, account.Source)
	})
}

// checkToken gets a token, if the registry wants one, and asks for /v2/ with it.
func checkToken(e *examination, r *upstream.Registry, repository string, isECR bool) {
	e.step("token", []string{"registry", "aws-config", "ecr-api", "credentials"}, func(ctx context.Context) finding {
		if repository == "" && !isECR {
			if account, err := r.Diagnosis().Account(ctx); err == nil && account == (auth.Account{}) {
				return skipped("an anonymous token is for one repository: name an image")
			}
		}
		grant, err := r.Diagnosis().Grant(ctx, repository)
		switch {
		case err != nil && isECR:
			return failed(err, adviceOnECRToken(err))
		case errors.Is(err, fs.ErrPermission):
			return failed(err, "The registry refuses these credentials. Check user name, password and whether the token was revoked; without credentials, whether the repository is public.")
		case err != nil:
			return failed(err, "Find out whether the registry works for others: it, or its token service, answered so.")
		case grant.Until.IsZero():
			return passed("the registry accepts us (%s)", grant.Kind)
		}
		return passed("%s, good for %s", grant.Kind, format.Remaining(grant.Until))
	})
}
