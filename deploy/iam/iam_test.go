package iam_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The accounts in the policies.
const (
	owner = "123456789012"
	other = "210987654321"
)

// document reads one of the policies.
func document(t *testing.T, name string) ecrtest.Policy {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ecrtest.ParsePolicy(raw)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return policy
}

// actions returns all actions that a policy allows.
func actions(p ecrtest.Policy) []string {
	var all []string
	for _, statement := range p {
		all = append(all, statement.Actions...)
	}
	return all
}

// without returns the policy without an action.
func without(p ecrtest.Policy, action string) ecrtest.Policy {
	var rest ecrtest.Policy
	for _, statement := range p {
		statement.Actions = slices.DeleteFunc(slices.Clone(statement.Actions), func(a string) bool { return a == action })
		if len(statement.Actions) > 0 {
			rest = append(rest, statement)
		}
	}
	return rest
}

const repository = "team/app"

// subject is an image and the registry that has it.
type subject struct {
	registry *upstream.Registry
	manifest digest.Digest
	layer    digest.Digest
}

// requests are all kinds of requests that Larder makes to ECR registries and, for
// a repository, to the ECR API.
var requests = map[string]func(context.Context, subject) error{
	"manifest by tag": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.Manifest(ctx, repository, "1.0", false)
		return err
	},
	"revalidation": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.Manifest(ctx, repository, "1.0", true)
		return err
	},
	"manifest by digest": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.Manifest(ctx, repository, s.manifest.String(), false)
		return err
	},
	"layer": func(ctx context.Context, s subject) error {
		content, err := s.registry.OpenBlob(ctx, repository, s.layer, upstream.Range{Len: 10})
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, content.Body)
		return errors.Join(err, content.Body.Close())
	},
	"membership of a layer": func(ctx context.Context, s subject) error {
		_, err := s.registry.BlobSize(ctx, repository, s.layer)
		return err
	},
	"referrers": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.List(ctx, repository, "referrers/"+s.manifest.String(), nil)
		return err
	},
	"tags": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.List(ctx, repository, "tags/list", nil)
		return err
	},
	"import": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.Manifest(ctx, "docker-hub/library/busybox", "1.0", false)
		return err
	},
	"credentials of ECR Public": func(ctx context.Context, s subject) error {
		account, err := s.registry.Diagnosis().Account(ctx)
		if err == nil && account == (auth.Account{}) {
			err = errors.New("asked anonymously")
		}
		return err
	},
	"lifecycle policy": func(ctx context.Context, s subject) error {
		_, err := s.registry.ECR().Lifecycle(ctx, repository, time.Time{})
		return err
	},
	"tag mutability": func(ctx context.Context, s subject) error {
		_, err := s.registry.ECR().TagMutabilities(ctx, []string{repository})
		return err
	},
	"scan findings": func(ctx context.Context, s subject) error {
		scan, err := s.registry.ECR().Scan(ctx, repository, s.manifest)
		if err == nil && scan.Status != ecr.ScanNotFound {
			err = fmt.Errorf("the status is %s", scan.Status)
		}
		return err
	},
	"push time": func(ctx context.Context, s subject) error {
		_, err := s.registry.ECR().Pushed(ctx, repository, s.manifest)
		return err
	},
	"revocation of a signature": func(ctx context.Context, s subject) error {
		_, err := s.registry.ECR().Revoked(ctx, ecr.SignerSignature{
			Region: "us-east-1", Platform: "Notation-OCI-SHA384-ECDSA", ProfileVersion: "profile", Job: "job", Signed: time.Now(), CertificateHashes: []string{"aa"},
		})
		return err
	},
	"replication rules": func(ctx context.Context, s subject) error {
		_, err := s.registry.ECR().Diagnosis().Replication(ctx)
		return err
	},
	"pull-time exclusion": func(ctx context.Context, s subject) error {
		_, err := s.registry.ECR().PullTimeExclusion(ctx)
		return err
	},
	"keep-alive": func(ctx context.Context, s subject) error { return s.registry.Touch(ctx, repository, s.manifest) },
}

var pulls = []string{"manifest by tag", "revalidation", "manifest by digest", "layer", "membership of a layer", "referrers", "keep-alive"}

// uses are sets of policies that serve a purpose together, and the requests that
// they must allow.
var uses = []struct {
	documents []string
	requests  []string
	attach    func(t *testing.T, s *stage, documents []ecrtest.Policy)
	public    bool // whether the registry is ECR Public
}{
	{[]string{"pull.json"}, pulls, asUserOf(owner), false},
	{[]string{"pull-with-hints.json"}, append([]string{"lifecycle policy", "tag mutability", "pull-time exclusion", "replication rules"}, pulls...), asUserOf(owner), false},
	{[]string{"pull.json", "list.json"}, append([]string{"tags"}, pulls...), asUserOf(owner), false},
	{[]string{"pull.json", "policy.json"}, append([]string{"scan findings", "push time", "revocation of a signature"}, pulls...), asUserOf(owner), false},
	{[]string{"pull.json", "pull-through.json"}, append([]string{"import"}, pulls...), asUserOf(owner), false},
	{[]string{"public.json"}, []string{"credentials of ECR Public"}, asUserOf(owner), true},
	{[]string{"cross-account-repository.json", "cross-account-caller.json"}, pulls, func(t *testing.T, s *stage, documents []ecrtest.Policy) {
		t.Helper()
		if err := s.fake.SetRepositoryPolicy(repository, documents[0]); err != nil {
			t.Fatal(err)
		}
		asUserOf(other)(t, s, documents[1:])
	}, false},
	{[]string{"pull.json", "assume-role.json", "assume-role-trust.json"}, pulls, func(t *testing.T, s *stage, documents []ecrtest.Policy) {
		t.Helper()
		s.identity.RoleARN = "arn:aws:iam::" + owner + ":role/larder-pull"
		var trusted []string
		for _, statement := range documents[2] {
			trusted = append(trusted, statement.Principals...)
		}
		node := "arn:aws:iam::" + other + ":role/node"
		s.fake.AWS().AddRole(ecrtest.Role{ARN: s.identity.RoleARN, Policy: documents[0], Trusts: trusted})
		s.fake.AWS().AddRole(ecrtest.Role{ARN: node, Policy: documents[1]})
		key, err := s.fake.AWS().Assume(node, "i-0abc")
		if err != nil {
			t.Fatal(err)
		}
		s.key = key
	}, false},
}

// asUserOf attaches all policies to a user of an account. Requests then use that
// user's key.
func asUserOf(account string) func(*testing.T, *stage, []ecrtest.Policy) {
	return func(_ *testing.T, s *stage, documents []ecrtest.Policy) {
		s.key = s.fake.AWS().AddUser("arn:aws:iam::"+account+":user/larder", slices.Concat(documents...))
	}
}

// stage is a fake ECR with an image, and the identity for requests to it.
type stage struct {
	fake     *ecrtest.Running
	image    *ecrtest.Added
	key      ecrtest.Key
	identity ecr.Identity
}

// newStage starts a fake ECR with an image in a repository, and with a
// pull-through repository that the fake fills from another registry.
func newStage(t *testing.T, public bool) *stage {
	t.Helper()
	fake, err := ecrtest.Start(ecrtest.Options{Account: owner, Public: public})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fake.Close() })
	elsewhere := ecrtest.New(ecrtest.Options{})
	image := ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 100)}}}
	if _, err := elsewhere.AddImage("library/busybox", "1.0", image); err != nil {
		t.Fatal(err)
	}
	fake.AddPullThrough(ecrtest.PullThrough{Prefix: "docker-hub", From: elsewhere})
	added, err := fake.AddImage(repository, "1.0", image)
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.SetLifecyclePolicy(repository, `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any",`+
		`"countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}`); err != nil {
		t.Fatal(err)
	}
	return &stage{fake: fake, image: added}
}

// ask makes requests with the attached policies and returns the failures.
func (s *stage) ask(t *testing.T, names []string) (failed []string) {
	t.Helper()
	fake := s.fake
	for _, environment := range []map[string]string{fake.Environment(), s.key.Environment()} {
		for name, value := range environment {
			t.Setenv(name, value)
		}
	}
	client := upstream.NewClient(upstream.Options{
		Log: slog.New(slog.DiscardHandler),
		Lookup: func(host string) (upstream.Config, bool) {
			settings := upstream.ECRConfig{APIEndpoint: fake.Endpoint, Identity: s.identity}
			return upstream.Config{Host: host, Endpoint: fake.Endpoint, ECR: settings}, true
		},
	})
	defer client.Close()
	registry, err := client.Registry(fake.Host())
	if err != nil {
		t.Fatal(err)
	}
	of := subject{registry, s.image.Root.Digest, s.image.Blobs[0].Digest}
	for _, name := range names {
		if err := requests[name](t.Context(), of); err != nil {
			failed = append(failed, name+": "+err.Error())
		}
	}
	return failed
}

func TestPoliciesAreSufficientAndMinimal(t *testing.T) {
	for _, use := range uses {
		t.Run(strings.Join(use.documents, "+"), func(t *testing.T) {
			var documents []ecrtest.Policy
			for _, name := range use.documents {
				documents = append(documents, document(t, name))
			}
			ask := func(documents []ecrtest.Policy) []string {
				s := newStage(t, use.public)
				use.attach(t, s, documents)
				return s.ask(t, use.requests)
			}
			for _, failed := range ask(documents) {
				t.Error(failed)
			}
			for i, d := range documents {
				for _, action := range actions(d) {
					less := slices.Clone(documents)
					less[i] = without(d, action)
					if len(ask(less)) == 0 {
						t.Errorf("no request needs %s of %s", action, use.documents[i])
					}
				}
			}
		})
	}
}

func TestReadmeNamesEveryPolicy(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(os.DirFS("."), "*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	for _, file := range files {
		document(t, file)
		if !strings.Contains(string(readme), "`"+filepath.Base(file)+"`") {
			t.Errorf("README.md does not say what %s is for", file)
		}
	}
}
