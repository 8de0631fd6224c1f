package doctor

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/larder-registry/larder/upstream/ecr/denial"
	"github.com/larder-registry/larder/upstream/reply"
)

// credentialsRefused reports whether AWS's answer blames the credentials.
func credentialsRefused(err error) bool {
	return has(err, "ExpiredToken", "InvalidClientTokenId", "UnrecognizedClient", "SignatureDoesNotMatch",
		"InvalidSignature", "IncompleteSignature", "RequestExpired", "MissingAuthenticationToken")
}

// adviceOnCredentials says what to do about credentials that AWS refuses.
func adviceOnCredentials(err error) string {
	switch {
	case has(err, "ExpiredToken"):
		return "The session has ended: log in again (aws sso login), or renew what writes these credentials."
	case has(err, "Signature not yet current", "Signature expired", "RequestExpired"):
		return "Set the clock of this machine: AWS refuses signatures that are more than 5 minutes off."
	case has(err, "SignatureDoesNotMatch", "InvalidSignature"):
		return "The secret key does not belong to the access key, or the region is not the registry's: check both."
	}
	return "AWS does not know this access key: check that it was not deleted, and that it is of the registry's partition."
}

// adviceOnECRToken says what to do when ECR gives no token, or refuses its token.
func adviceOnECRToken(err error) string {
	switch {
	case credentialsRefused(err):
		return adviceOnCredentials(err)
	case isDenial(err):
		return adviceOnDenial(err)
	case errors.Is(err, fs.ErrPermission):
		return "ECR refuses its own token: check the policies of the VPC endpoint ecr.dkr and of the organization."
	case has(err, "Throttling", "Rate exceeded"):
		return "ECR limits requests: try again in a minute, and find out what else sends so many."
	}
	return "Check the steps above, and the status of ECR in this region."
}

// adviceOnManifest says what to do when the manifest cannot be fetched.
func adviceOnManifest(err error) string {
	var refusal *reply.Error
	switch {
	case isDenial(err):
		return adviceOnDenial(err)
	case errors.Is(err, fs.ErrPermission):
		return "These credentials may not pull from the repository, or it does not exist: registries often answer the same for both. Check its name, and auth of this upstream."
	case errors.Is(err, fs.ErrNotExist):
		return "Check the repository's name and the tag, and that it was pushed to this registry: account and region are part of an ECR host's name. For one of ECR's pull-through repositories see deploy/iam/pull-through.json."
	case errors.As(err, &refusal) && refusal.Throttled():
		return "The registry limits pulls: wait, or log in (auth of this upstream)."
	}
	return "Find out whether the registry works for others: it answered so."
}

// adviceOnLayer says what to do when a registry does not hand out a layer.
func adviceOnLayer(err error) string {
	if isDenial(err) {
		return adviceOnDenial(err)
	}
	return "The registry has the manifest and does not hand out the layer: at ECR this needs ecr:GetDownloadUrlForLayer (deploy/iam/pull.json); elsewhere the layer may be gone."
}

func isDenial(err error) bool {
	_, ok := denial.Parse(err.Error())
	return ok
}

// adviceOnDenial says which document allows what AWS denies. The error itself names
// the action and the caller.
func adviceOnDenial(err error) string {
	d, _ := denial.Parse(err.Error())
	switch {
	case d.Explicit:
		return "A policy denies it, and no other policy can allow it then: find the statement that denies it and remove it."
	case strings.HasPrefix(d.Action, "sts:AssumeRole"):
		return "The role must trust these credentials, and they must be allowed to assume it: see deploy/iam/assume-role-trust.json and deploy/iam/assume-role.json."
	case d.Policy == "resource-based policy":
		return "The repository's own policy must allow it: its account adds deploy/iam/cross-account-repository.json to the repository."
	case d.Policy == "identity-based policy" || d.Policy == "":
		return "The policies of these credentials must allow it: attach deploy/iam/pull.json, or for another account's repository deploy/iam/cross-account-caller.json."
	}
	return "The " + d.Policy + " must allow it. It is not attached to the credentials: ask the administrators of the organization and the VPC endpoint."
}

// has reports whether an error contains one of the texts: AWS's codes come through
// layers of errors that do not unwrap.
func has(err error, texts ...string) bool {
	for _, text := range texts {
		if err != nil && strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}
