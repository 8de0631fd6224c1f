package upstream

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// ECRConfig has what an ECR registry's host does not tell.
type ECRConfig struct {
	// APIEndpoint is the URL of the ECR API. Empty means AWS's own.
	APIEndpoint string
	// Region is that of the registry. Empty means the one in its host's name.
	Region string
	// Replicas are the hosts of registries in other regions to which this one's
	// repositories are replicated, in the order in which they stand in for it.
	// Their own settings are those that Options.Lookup knows, if any.
	Replicas []string
	// PullThrough are the prefixes of the registry's pull-through cache rules; ROOT
	// stands for all repositories.
	PullThrough []string
}

// ecrHost is what the name of an ECR registry says.
type ecrHost struct {
	Account, Region string
	FIPS, DualStack bool
}

// ecrHostForm covers every partition; it is the form that AWS's own credential
// helper and the cloud provider's kubelet plug-in recognise.
var ecrHostForm = regexp.MustCompile(`^(\d{12})\.dkr([.-])ecr(-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.` +
	`(?:amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|` +
	`sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// parseECRHost recognises the host of a private ECR registry.
func parseECRHost(host string) (ecrHost, bool) {
	m := ecrHostForm.FindStringSubmatch(host)
	if m == nil {
		return ecrHost{}, false
	}
	return ecrHost{Account: m[1], Region: m[4], FIPS: m[3] != "", DualStack: m[2] == "-"}, true
}

// ecrAuth authenticates at ECR with a token that all registries of a region
// share.
type ecrAuth struct {
	source  *tokenSource
	api     *ecrAPI
	account string // of the registry; empty means that of the credentials
}

func (a *ecrAuth) authorize(ctx context.Context, req *http.Request, _ string) (string, error) {
	token, err := a.source.get(ctx)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Basic "+token)
	return token, nil
}

// refused renews a token that ECR says is no good. ECR says so by 401, by 400
// without a challenge, and by 403 with a text that only an expired token gets;
// any other 403 is a real denial.
func (a *ecrAuth) refused(ctx context.Context, resp *http.Response, used, _ string) (bool, error) {
	detail := firstError(peek(resp))
	switch resp.StatusCode {
	case http.StatusForbidden:
		if !strings.Contains(detail.Message, "token has expired") {
			return false, nil
		}
	case http.StatusBadRequest:
		if detail.Message != "" && detail.Code != errcode.ErrorCodeDenied {
			return false, nil // it is about something else, such as an illegal tag
		}
	}
	return true, a.source.renew(ctx, used)
}
