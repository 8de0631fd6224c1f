package denial_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/ecr/denial"
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

// denials are texts of AWS, and how they read.
var denials = map[string]struct {
	text   string
	denial denial.Denial
	remedy string
}{
	"the identity's side": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" because no identity-based policy allows the ecr:BatchGetImage action",
		denial.Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "identity-based policy", false, ""},
		"add to the policies of " + nodeRole + ": " + pullOn + `"` + ownRepo + `"}`,
	},
	"the repository's side": {
		"User: " + nodeSession + " is not authorized to perform: ecr:GetDownloadUrlForLayer on resource: " + othersRepo +
			" because no resource-based policy allows the ecr:GetDownloadUrlForLayer action.",
		denial.Denial{nodeSession, "ecr:GetDownloadUrlForLayer", othersRepo, "resource-based policy", false, ""},
		"add to the repository policy of team/app in account 123456789012: " + pullBy,
	},
	"which side is not told, within an account": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo,
		denial.Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "", false, ""},
		"add to the policies of " + nodeRole + ": " + pullOn + `"` + ownRepo + `"}`,
	},
	"which side is not told, across accounts": {
		"denied: User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + othersRepo + ".",
		denial.Denial{nodeSession, "ecr:BatchGetImage", othersRepo, "", false, ""},
		"add to the policies of " + nodeRole + ": " + pullOn + `"` + othersRepo + `"}; and add to the repository policy of team/app in account 123456789012: ` + pullBy,
	},
	"an action that pulls do not need": {
		"User: arn:aws:iam::111122223333:user/ci is not authorized to perform: ecr:ListImages on resource: " + ownRepo +
			" because no identity-based policy allows the ecr:ListImages action",
		denial.Denial{"arn:aws:iam::111122223333:user/ci", "ecr:ListImages", ownRepo, "identity-based policy", false, ""},
		`add to the policies of arn:aws:iam::111122223333:user/ci: {"Effect":"Allow","Action":"ecr:ListImages","Resource":"` + ownRepo + `"}`,
	},
	"tokens": {
		"operation error ECR: GetAuthorizationToken, https response error StatusCode: 400, RequestID: 1, api error AccessDeniedException: User: " +
			nodeSession + " is not authorized to perform: ecr:GetAuthorizationToken on resource: * because no identity-based policy allows the ecr:GetAuthorizationToken action",
		denial.Denial{nodeSession, "ecr:GetAuthorizationToken", "*", "identity-based policy", false, ""},
		"add to the policies of " + nodeRole + `: {"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}`,
	},
	"tokens of ECR Public": {
		"User: " + nodeSession + " is not authorized to perform: sts:GetServiceBearerToken on resource: * because no identity-based policy allows the sts:GetServiceBearerToken action",
		denial.Denial{nodeSession, "sts:GetServiceBearerToken", "*", "identity-based policy", false, ""},
		"add to the policies of " + nodeRole + `: {"Effect":"Allow","Action":["ecr-public:GetAuthorizationToken","sts:GetServiceBearerToken"],"Resource":"*"}`,
	},
	"a role": {
		"api error AccessDenied: User: " + nodeSession + " is not authorized to perform: sts:AssumeRole on resource: " + othersRole,
		denial.Denial{nodeSession, "sts:AssumeRole", othersRole, "", false, ""},
		"add to the policies of " + nodeRole + `: {"Effect":"Allow","Action":"sts:AssumeRole","Resource":"` + othersRole +
			`"}; and add to the trust policy of ` + othersRole + `: {"Effect":"Allow","Principal":{"AWS":"` + nodeRole + `"},"Action":"sts:AssumeRole"}`,
	},
	"an explicit deny": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" with an explicit deny in a resource-based policy",
		denial.Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "resource-based policy", true, ""},
		"a statement that denies it must go from the repository policy of team/app in account 111122223333",
	},
	"an explicit deny in a policy that is named": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" with an explicit deny in a service control policy: arn:aws:organizations::987654321098:policy/o-1/service_control_policy/p-2.",
		denial.Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "service control policy", true, "arn:aws:organizations::987654321098:policy/o-1/service_control_policy/p-2"},
		"a statement that denies it must go from the service control policy arn:aws:organizations::987654321098:policy/o-1/service_control_policy/p-2",
	},
	"an endpoint in a VPC": {
		"User: " + nodeSession + " is not authorized to perform: ecr:BatchGetImage on resource: " + ownRepo +
			" because no VPC endpoint policy allows the ecr:BatchGetImage action",
		denial.Denial{nodeSession, "ecr:BatchGetImage", ownRepo, "VPC endpoint policy", false, ""},
		"add to the VPC endpoint policy: " + pullOn + `"` + ownRepo + `"}`,
	},
	"a permissions boundary, in China": {
		"User: arn:aws-cn:sts::111122223333:assumed-role/node/i-0abc is not authorized to perform: ecr:BatchGetImage on resource: " +
			"arn:aws-cn:ecr:cn-north-1:111122223333:repository/app because no permissions boundary allows the ecr:BatchGetImage action",
		denial.Denial{"arn:aws-cn:sts::111122223333:assumed-role/node/i-0abc", "ecr:BatchGetImage", "arn:aws-cn:ecr:cn-north-1:111122223333:repository/app", "permissions boundary", false, ""},
		"add to the permissions boundary: " + pullOn + `"arn:aws-cn:ecr:cn-north-1:111122223333:repository/app"}`,
	},
}

func TestDenialNamesActionPrincipalPolicyAndRemedy(t *testing.T) {
	for name, test := range denials {
		got, ok := denial.Parse(test.text)
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

func TestOtherTextIsNotADenial(t *testing.T) {
	for _, text := range []string{
		"",
		"Your authorization token has expired. Reauthenticate and try again.",
		"Not Authorized",
		"User is not authorized to perform: ecr:BatchGetImage",
		"User: me is not authorized to perform: ecr:BatchGetImage on resource: x",
		"requested access to the resource is denied",
	} {
		if d, ok := denial.Parse(text); ok {
			t.Errorf("%q reads as %+v", text, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, test := range denials {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, ok := denial.Parse(text)
		if !ok {
			return
		}
		if remedy := d.Remedy(); remedy == "" || strings.ContainsAny(remedy, "\r\n") {
			t.Errorf("%q: remedy %q", text, remedy)
		}
		for _, a := range denial.Attrs(text) {
			if strings.HasSuffix(a.Key, "_statement") && !json.Valid([]byte(a.Value.String())) {
				t.Errorf("%q: statement %s", text, a.Value)
			}
		}
	})
}
