package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr/denial"
	"github.com/larder-registry/larder/upstream/reply"
)

// adviceOnConnection says what to do about a place that cannot be reached.
func adviceOnConnection(c upstream.Connection) string {
	if c.Proxy != "" {
		return "This goes by the proxy " + c.Proxy + ": check that it is up and lets this host through, or add the host to NO_PROXY."
	}
	if advice, ok := adviceOnCertificate(c.Err); ok {
		return advice
	}
	var dns *net.DNSError
	switch {
	case errors.As(c.Err, &dns) && dns.IsNotFound:
		return "No such name here: check its spelling and the region in it. In a VPC with an endpoint for it, turn on the endpoint's private DNS."
	case c.Stage == upstream.StageDNS:
		return "The DNS server does not answer: check /etc/resolv.conf, and in a VPC that DNS resolution is on."
	case errors.Is(c.Err, syscall.ECONNREFUSED):
		return "Nothing listens there: check the endpoint in the configuration, and what the name stands for."
	case c.Stage == upstream.StageTCP:
		return "Packets get lost on the way: look at routes, security groups and network policies. A subnet without a way out needs VPC endpoints: ecr.dkr, ecr.api and sts, and the gateway endpoint of S3 for layers."
	case c.Stage == upstream.StageTLS:
		return "What answers there does not speak TLS as it should: look for a proxy or firewall on the way, and whether the endpoint is meant to be http."
	}
	return "What is there takes connections and does not answer: look at the registry, and at proxies and firewalls on the way."
}

func adviceOnCertificate(err error) (string, bool) {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		return "Its certificate is signed by an authority that is not trusted here, as that of a proxy that looks into TLS is: add the authority's certificate to the system's, or name it in SSL_CERT_FILE (for AWS's APIs AWS_CA_BUNDLE).", true
	case errors.As(err, &hostname):
		return "Its certificate is for another name: check the endpoint in the configuration, and what the name stands for in DNS.", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "Its certificate is not good now: check the clock of this machine first, then have the registry's certificate renewed.", true
	case errors.As(err, &verification):
		return "Its certificate cannot be verified: see what the error says of it.", true
	}
	return "", false
}

// credentialsRefused reports AWS's answers that blame the credentials.
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

// adviceOnECRToken says what to do where ECR gives no token, or refuses it.
func adviceOnECRToken(err error) string {
	switch {
	case credentialsRefused(err):
		return adviceOnCredentials(err)
	case isDenial(err):
		return adviceOnDenial(err)
	case errors.Is(err, fs.ErrPermission):
		return "ECR gave a token and refuses it: look at the policies of the VPC endpoint ecr.dkr and of the organization."
	case has(err, "Throttling", "Rate exceeded"):
		return "ECR limits how often it is asked: try again in a minute, and look for what else asks it so often."
	}
	return "See the steps above for what may be in the way, and the status of ECR in this region."
}

// adviceOnManifest says what to do where there is no manifest.
func adviceOnManifest(err error) string {
	var refusal *reply.Error
	switch {
	case isDenial(err):
		return adviceOnDenial(err)
	case errors.Is(err, fs.ErrPermission):
		return "These credentials may not pull from the repository, or it is not there: registries often say the same of both. Check its name, and auth of this upstream."
	case errors.Is(err, fs.ErrNotExist):
		return "Check the repository's name and the tag, and that it was pushed to this registry: account and region are part of an ECR host's name. For one of ECR's pull-through repositories see deploy/iam/pull-through.json."
	case errors.As(err, &refusal) && refusal.Throttled():
		return "The registry limits pulls: wait, or log in (auth of this upstream)."
	}
	return "See whether the registry works for others: this is its own answer."
}

// adviceOnLayer says what to do where a registry does not hand out a layer.
func adviceOnLayer(err error) string {
	if isDenial(err) {
		return adviceOnDenial(err)
	}
	return "The registry has the manifest and does not hand out the layer: at ECR that takes ecr:GetDownloadUrlForLayer (deploy/iam/pull.json); elsewhere the layer may be gone."
}

func isDenial(err error) bool {
	_, ok := denial.Parse(err.Error())
	return ok
}

// adviceOnDenial says which document allows what AWS denies; the error itself
// says what is denied to whom.
func adviceOnDenial(err error) string {
	d, _ := denial.Parse(err.Error())
	switch {
	case d.Explicit:
		return "A policy forbids it, and then it is of no use to allow it elsewhere: find the statement that denies it and take it out."
	case strings.HasPrefix(d.Action, "sts:AssumeRole"):
		return "The role must trust these credentials, and they must be allowed to assume it: see deploy/iam/assume-role-trust.json and deploy/iam/assume-role.json."
	case d.Policy == "resource-based policy":
		return "The repository's own policy must allow it: its account adds deploy/iam/cross-account-repository.json to the repository."
	case d.Policy == "identity-based policy" || d.Policy == "":
		return "The policies of these credentials must allow it: attach deploy/iam/pull.json, or for another account's repository deploy/iam/cross-account-caller.json."
	}
	return "What must allow it is the " + d.Policy + ", which is not with the credentials: see who administers the organization, and the VPC endpoint."
}

// has looks for texts in an error, as AWS's codes come through several layers of
// errors that do not unwrap.
func has(err error, texts ...string) bool {
	for _, text := range texts {
		if err != nil && strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}
