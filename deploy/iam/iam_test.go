package iam_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The accounts of the documents.
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

// actions are all that a policy allows.
func actions(p ecrtest.Policy) []string {
	var all []string
	for _, statement := range p {
		all = append(all, statement.Actions...)
	}
	return all
}

// without is a policy that allows all but an action.
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

// subject is an image, and what there is to ask of its repository.
type subject struct {
	registry *upstream.Registry
	manifest digest.Digest
	layer    digest.Digest
}

// requests are everything that Larder asks of a registry with private ECR's
// tokens, and of ECR's API about a repository.
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
		body, _, _, err := s.registry.Blob(ctx, repository, s.layer, 0, 10, false)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, body)
		return errors.Join(err, body.Close())
	},
	"membership of a layer": func(ctx context.Context, s subject) error {
		_, _, _, err := s.registry.Blob(ctx, repository, s.layer, 0, 0, false)
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
	"lifecycle policy": func(ctx context.Context, s subject) error {
		_, _, err := s.registry.Lifecycle(ctx, repository)
		return err
	},
}

var pulls = []string{"manifest by tag", "revalidation", "manifest by digest", "layer", "membership of a layer", "referrers"}

// uses are the documents that serve a purpose together, and what must work then.
var uses = []struct {
	caller     string   // the account of who asks
	identity   []string // documents attached to them
	repository string   // document that is the repository's policy
	requests   []string
}{
	{owner, []string{"pull.json"}, "", pulls},
	{owner, []string{"pull-with-hints.json"}, "", append([]string{"lifecycle policy"}, pulls...)},
	{owner, []string{"pull.json", "list.json"}, "", append([]string{"tags"}, pulls...)},
	{other, []string{"cross-account-caller.json"}, "cross-account-repository.json", pulls},
}

// ask makes requests with the policies, and returns those that fail.
func ask(t *testing.T, names []string, caller string, identity, resource ecrtest.Policy) (failed []string) {
	t.Helper()
	fake, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	added, err := fake.AddImage(repository, "1.0", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 100)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.SetLifecyclePolicy(repository, `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any",`+
		`"countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}`); err != nil {
		t.Fatal(err)
	}
	if err := fake.SetRepositoryPolicy(repository, resource); err != nil {
		t.Fatal(err)
	}
	key := fake.AWS().AddUser("arn:aws:iam::"+caller+":user/larder", identity)
	for name, value := range fake.Environment() {
		t.Setenv(name, value)
	}
	for name, value := range key.Environment() {
		t.Setenv(name, value)
	}
	client := upstream.NewClient(upstream.Options{
		Log: slog.New(slog.DiscardHandler),
		Lookup: func(host string) (upstream.Config, bool) {
			return upstream.Config{Host: host, Endpoint: fake.Endpoint, ECR: upstream.ECRConfig{APIEndpoint: fake.Endpoint}}, true
		},
	})
	defer client.Close()
	registry, err := client.Registry(fake.Host())
	if err != nil {
		t.Fatal(err)
	}
	s := subject{registry, added.Root.Digest, added.Blobs[0].Digest}
	for _, name := range names {
		if err := requests[name](t.Context(), s); err != nil {
			failed = append(failed, name+": "+err.Error())
		}
	}
	return failed
}

func TestPoliciesAllowWhatTheyAreForAndNoMore(t *testing.T) {
	for _, use := range uses {
		t.Run(strings.Join(use.identity, "+"), func(t *testing.T) {
			var identity, resource ecrtest.Policy
			for _, name := range use.identity {
				identity = append(identity, document(t, name)...)
			}
			if use.repository != "" {
				resource = document(t, use.repository)
			}
			for _, failed := range ask(t, use.requests, use.caller, identity, resource) {
				t.Error(failed)
			}
			for _, action := range actions(identity) {
				if len(ask(t, use.requests, use.caller, without(identity, action), resource)) == 0 {
					t.Errorf("nothing needs %s of the caller", action)
				}
			}
			for _, action := range actions(resource) {
				if len(ask(t, use.requests, use.caller, identity, without(resource, action))) == 0 {
					t.Errorf("nothing needs %s of the repository", action)
				}
			}
		})
	}
}

func TestReadmeNamesEveryDocument(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(os.DirFS("."), "*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, file := range files {
		document(t, file)
		if !strings.Contains(string(readme), "`"+filepath.Base(file)+"`") {
			t.Errorf("README.md does not say what %s is for", file)
		}
	}
}
