package upstream

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// The caller's own policy allows pulls, and the policy of another account's
// repository does not.
func TestDenialAcrossAccountsNamesTheRepositoryPolicy(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	const user = "arn:aws:iam::444455556666:user/ci"
	key := server.AWS().AddUser(user, ecrtest.Policy{ecrtest.Allow(ecrtest.PullActions()...)})
	setenv(t, key.Environment())
	for _, head := range []bool{false, true} {
		_, _, err := server.Manifest(t.Context(), repo, "v1", head)
		if !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("head %t: %v, want %v", head, err, fs.ErrPermission)
		}
		for _, want := range []string{
			"403 Forbidden", user, "ecr:BatchGetImage", "because no resource-based policy allows",
			"add to the repository policy of team/app in account 123456789012: " +
				`{"Effect":"Allow","Principal":{"AWS":"` + user + `"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}`,
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("head %t: %v\ndoes not say %s", head, err, want)
			}
		}
	}
	if n := server.Stats().Tokens; n != 1 {
		t.Errorf("%d tokens were issued, want 1: a denial does not renew the token", n)
	}
	// The statement of the error allows it.
	err := server.SetRepositoryPolicy(repo, ecrtest.Policy{ecrtest.Allow("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer").To(user)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.Manifest(t.Context(), repo, "v1", false); err != nil {
		t.Error(err)
	}
}

func TestDeniedTokenSaysWhatWouldAllowIt(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	const user = "arn:aws:iam::123456789012:user/nobody"
	setenv(t, server.AWS().AddUser(user, nil).Environment())
	_, _, err := server.Manifest(t.Context(), repo, "v1", false)
	want := "add to the policies of " + user + `: {"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}`
	upstreamtest.WantNoCredentials(t, err, want)
	server.log.WantLines(t, "no ECR token", 1)

	var denied interface{ DenialAttrs() []slog.Attr }
	if !errors.As(err, &denied) || len(denied.DenialAttrs()) == 0 {
		t.Errorf("%v has nothing for the log", err)
	}
}
