package upstream

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const (
	nodeSession = "arn:aws:sts::111122223333:assumed-role/node/i-0abc"
	nodeRole    = "arn:aws:iam::111122223333:role/node"
	ownRepo     = "arn:aws:ecr:us-east-1:111122223333:repository/team/app"
	othersRepo  = "arn:aws:ecr:us-east-1:123456789012:repository/team/app"
	othersRole  = "arn:aws:iam::123456789012:role/pull"

	pullOn = `{"Effect":"Allow","Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"],"Resource":`
	pullBy = `{"Effect":"Allow","Principal":{"AWS":"` + nodeRole + `"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}`
)

// denials are AWS's words, and what they mean.
var denials = map[string]struct {
	text   string
	denial Denial
	remedy string
}{
	"the identity's side": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" because no identity-based policy allows the ecr:BatchGetImage action",
		Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "identity-based policy", false, ""},
		"add to the policies of " + nodeRole + ": " + pullOn + `"` + ownRepo + `"}`,
	},
	"the repository's side": {
		"User: " + nodeSession + " is not authorized to perform: ecr:GetDownloadUrlForLayer on resource: " + othersRepo +
			" because no resource-based policy allows the ecr:GetDownloadUrlForLayer action.",
		Denial{nodeSession, "ecr:GetDownloadUrlForLayer", othersRepo, "resource-based policy", false, ""},
		"add to the repository policy of team/app in account 123456789012: " + pullBy,
	},
	"which side is not told, within an account": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo,
		Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "", false, ""},
		"add to the policies of " + nodeRole + ": " + pullOn + `"` + ownRepo + `"}`,
	},
	"which side is not told, across accounts": {
		"denied: User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + othersRepo + ".",
		Denial{nodeSession, "ecr:BatchGetImage", othersRepo, "", false, ""},
		"add to the policies of " + nodeRole + ": " + pullOn + `"` + othersRepo + `"}; and add to the repository policy of team/app in account 123456789012: ` + pullBy,
	},
	"an action that pulls do not need": {
		"User: arn:aws:iam::111122223333:user/ci is not authorized to perform: ecr:ListImages on resource: " + ownRepo +
			" because no identity-based policy allows the ecr:ListImages action",
		Denial{"arn:aws:iam::111122223333:user/ci", "ecr:ListImages", ownRepo, "identity-based policy", false, ""},
		`add to the policies of arn:aws:iam::111122223333:user/ci: {"Effect":"Allow","Action":"ecr:ListImages","Resource":"` + ownRepo + `"}`,
	},
	"tokens": {
		"operation error ECR: GetAuthorizationToken, https response error StatusCode: 400, RequestID: 1, api error AccessDeniedException: User: " +
			nodeSession + " is not authorized to perform: ecr:GetAuthorizationToken on resource: * because no identity-based policy allows the ecr:GetAuthorizationToken action",
		Denial{nodeSession, "ecr:GetAuthorizationToken", "*", "identity-based policy", false, ""},
		"add to the policies of " + nodeRole + `: {"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}`,
	},
	"tokens of ECR Public": {
		"User: " + nodeSession + " is not authorized to perform: sts:GetServiceBearerToken on resource: * because no identity-based policy allows the sts:GetServiceBearerToken action",
		Denial{nodeSession, "sts:GetServiceBearerToken", "*", "identity-based policy", false, ""},
		"add to the policies of " + nodeRole + `: {"Effect":"Allow","Action":["ecr-public:GetAuthorizationToken","sts:GetServiceBearerToken"],"Resource":"*"}`,
	},
	"a role": {
		"api error AccessDenied: User: " + nodeSession + " is not authorized to perform: sts:AssumeRole on resource: " + othersRole,
		Denial{nodeSession, "sts:AssumeRole", othersRole, "", false, ""},
		"add to the policies of " + nodeRole + `: {"Effect":"Allow","Action":"sts:AssumeRole","Resource":"` + othersRole +
			`"}; and add to the trust policy of ` + othersRole + `: {"Effect":"Allow","Principal":{"AWS":"` + nodeRole + `"},"Action":"sts:AssumeRole"}`,
	},
	"an explicit deny": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" with an explicit deny in a resource-based policy",
		Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "resource-based policy", true, ""},
		"a statement that denies it must go from the repository policy of team/app in account 111122223333",
	},
	"an explicit deny in a policy that is named": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" with an explicit deny in a service control policy: arn:aws:organizations::987654321098:policy/o-1/service_control_policy/p-2.",
		Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "service control policy", true, "arn:aws:organizations::987654321098:policy/o-1/service_control_policy/p-2"},
		"a statement that denies it must go from the service control policy arn:aws:organizations::987654321098:policy/o-1/service_control_policy/p-2",
	},
	"an endpoint in a VPC": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" because no VPC endpoint policy allows the ecr:BatchGetImage action",
		Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "VPC endpoint policy", false, ""},
		"add to the VPC endpoint policy: " + pullOn + `"` + ownRepo + `"}`,
	},
	"a permissions boundary, in China": {
		"User: arn:aws-cn:sts::111122223333:assumed-role/node/i-0abc is not authorized to perform: ecr:BatchGetImage on resource: " +
			"arn:aws-cn:ecr:cn-north-1:111122223333:repository/app because no permissions boundary allows the ecr:BatchGetImage action",
		Denial{"arn:aws-cn:sts::111122223333:assumed-role/node/i-0abc", "ecr:BatchGetImage", "arn:aws-cn:ecr:cn-north-1:111122223333:repository/app", "permissions boundary", false, ""},
		"add to the permissions boundary: " + pullOn + `"arn:aws-cn:ecr:cn-north-1:111122223333:repository/app"}`,
	},
}

func TestDenialNamesActionPrincipalSideAndRemedy(t *testing.T) {
	for name, test := range denials {
		got, ok := ParseDenial(test.text)
		if !ok {
			t.Errorf("%s: not read as a denial", name)
			continue
		}
		if diff := cmp.Diff(test.denial, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(test.remedy, got.Remedy()); diff != "" {
			t.Errorf("%s: remedy (-want +got):\n%s", name, diff)
		}
	}
}

func TestOtherTextsAreNoDenials(t *testing.T) {
	for _, text := range []string{
		"",
		"Your authorization token has expired. Reauthenticate and try again.",
		"Not Authorized",
		"User is not authorized to perform: ecr:BatchGetImage",
		"User: me is not authorized to perform: ecr:BatchGetImage on resource: x",
		"requested access to the resource is denied",
	} {
		if d, ok := ParseDenial(text); ok {
			t.Errorf("%q reads as %+v", text, d)
		}
	}
}

func FuzzParseDenial(f *testing.F) {
	for _, test := range denials {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, ok := ParseDenial(text)
		if !ok {
			return
		}
		if remedy := d.Remedy(); remedy == "" || strings.ContainsAny(remedy, "\r\n") {
			t.Errorf("%q: remedy %q", text, remedy)
		}
		for _, a := range d.statements() {
			if !d.Explicit && !json.Valid([]byte(a.text)) {
				t.Errorf("%q: statement %s", text, a.text)
			}
		}
	})
}

// The caller may pull by its own policy, and the repository of another account
// does not know it.
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
		t.Errorf("%d tokens were issued, want 1: a denial is none of the token's", n)
	}
	// The advice is good.
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
	wantNoCredentials(t, err, want)
	server.log.wantLines(t, "no ECR token", 1)

	var denied interface{ DenialAttrs() []slog.Attr }
	if !errors.As(err, &denied) || len(denied.DenialAttrs()) == 0 {
		t.Errorf("%v has nothing for the log", err)
	}
}

func TestErrorIsOneLineOfBoundedLength(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		body, _ := json.Marshal(map[string]any{"errors": []any{map[string]string{
			"code": "DENIED", "message": "no\r\n\tnever\n" + strings.Repeat("again ", maxMessage),
		}}})
		_, _ = w.Write(body)
	})
	_, _, err := r.Manifest(t.Context(), repo, "v1", false)
	if err == nil || !strings.Contains(err.Error(), "no never again again") || strings.ContainsAny(err.Error(), "\r\n\t") {
		t.Errorf("got %.200q, want one line", err)
	}
	if err != nil && len(err.Error()) > 2*maxMessage {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}
