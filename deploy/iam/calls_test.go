package iam_test

import (
	"cmp"
	"go/ast"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// services maps the AWS SDK packages whose clients Larder calls to the prefix of
// their IAM actions.
var services = map[string]string{
	"github.com/aws/aws-sdk-go-v2/service/ecr":       "ecr",
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic": "ecr-public",
	"github.com/aws/aws-sdk-go-v2/service/s3":        "s3",
	"github.com/aws/aws-sdk-go-v2/service/signer":    "signer",
	"github.com/aws/aws-sdk-go-v2/service/sts":       "sts",
}

// permissions are those of operations that have none of their own name (Amazon S3 user guide, "Required permissions for
// Amazon S3 API operations").
var permissions = map[string]string{
	"s3:HeadBucket":              "s3:ListBucket",
	"s3:HeadObject":              "s3:GetObject",
	"s3:CreateMultipartUpload":   "s3:PutObject",
	"s3:UploadPart":              "s3:PutObject",
	"s3:CompleteMultipartUpload": "s3:PutObject",
}

// free needs no permission (API reference, GetCallerIdentity).
const free = "sts:GetCallerIdentity"

// TestEveryAWSCallIsAllowedByAPolicy reads the code. For each AWS operation that
// the code calls, some policy must allow the action.
func TestEveryAWSCallIsAllowedByAPolicy(t *testing.T) {
	files, err := fs.Glob(os.DirFS("."), "*.json")
	if err != nil {
		t.Fatal(err)
	}
	allowed := make(map[string]bool)
	for _, file := range files {
		for _, action := range actions(document(t, file)) {
			allowed[action] = true
		}
	}
	calls := awsCalls(t)
	if !slices.Contains(calls, "ecr:GetAuthorizationToken") {
		t.Fatalf("found the calls %v, without ecr:GetAuthorizationToken", calls)
	}
	for _, call := range calls {
		if !allowed[call] && call != free {
			t.Errorf("Larder calls %s, which no policy allows", call)
		}
	}
}

// awsCalls returns the IAM actions of all AWS operations that the daemon and its
// commands use.
func awsCalls(t *testing.T) []string {
	t.Helper()
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedExportFile | packages.NeedFiles,
	}, "github.com/larder-registry/larder/upstream/...", "github.com/larder-registry/larder/cmd/larder/...", "github.com/larder-registry/larder/cmd/internal/...")
	if err != nil {
		t.Fatal(err)
	}
	calls := make(map[string]bool)
	for _, p := range loaded {
		for _, err := range p.Errors {
			t.Error(err)
		}
		for id, object := range p.TypesInfo.Uses {
			if call, ok := operation(id, object); ok {
				calls[call] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(calls))
}

// operation returns the action of a use of an AWS operation. A method of an SDK
// client is an operation if it takes client options as its last, variadic
// parameter. Roles are assumed by a helper of the SDK.
func operation(id *ast.Ident, object types.Object) (action string, ok bool) {
	f, ok := object.(*types.Func)
	if !ok || f.Pkg() == nil {
		return "", false
	}
	if strings.HasSuffix(f.Pkg().Path(), "/credentials/stscreds") && id.Name == "NewAssumeRoleProvider" {
		return "sts:AssumeRole", true
	}
	service, ok := services[f.Pkg().Path()]
	signature := f.Signature()
	if !ok || signature.Recv() == nil || !signature.Variadic() || !strings.HasSuffix(signature.Recv().Type().String(), ".Client") {
		return "", false
	}
	action = service + ":" + f.Name()
	return cmp.Or(permissions[action], action), true
}
