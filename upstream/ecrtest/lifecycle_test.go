package ecrtest_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// describer returns the client of the SDK with the credentials of the default user.
func describer(c *client) *ecr.Client { return c.api("AKIDLARDERTEST", "us-east-1") }

func TestGetLifecyclePolicyReturnsTheTextThatWasSet(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	c.addBlob(ecrtest.Bytes(nil)) // creates the repository
	get := func(account, repo string) (string, error) {
		out, err := describer(c).GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{
			RegistryId: aws.String(account), RepositoryName: aws.String(repo)})
		if err != nil {
			return "", err
		}
		return *out.LifecyclePolicyText, nil
	}
	_, err := get("123456789012", "team/app")
	wantAPIError(t, err, "LifecyclePolicyNotFoundException")
	if err := server.SetLifecyclePolicy("team/app", `{"rules":[]}`); err != nil {
		t.Fatal(err)
	}
	if text, err := get("123456789012", "team/app"); err != nil || text != `{"rules":[]}` {
		t.Errorf("got %q, %v", text, err)
	}
	_, err = get("210987654321", "team/app")
	wantAPIError(t, err, "RepositoryNotFoundException")
	_, err = get("123456789012", "team/other")
	wantAPIError(t, err, "RepositoryNotFoundException")
}

// Lifecycle policies that expire images of more than a day.
const (
	ofADay         = `"countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}`
	untaggedRule   = `{"rulePriority":2,"selection":{"tagStatus":"untagged",` + ofADay
	oldRule        = `{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["old"],` + ofADay
	untagged       = `{"rules":[` + untaggedRule + `]}`
	oldAndUntagged = `{"rules":[` + oldRule + `,` + untaggedRule + `]}`
)

func TestLifecyclePolicyKeepsIndexesAndReferrersTogether(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now, TokenTTL: 1000 * time.Hour})
	old, err := server.AddImage("team/app", "old", image())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := server.AddImage("team/app", "kept", ecrtest.Image{
		Layers: []ecrtest.Layer{{Content: ecrtest.Random(9, 10)}}, Platforms: []string{"linux/amd64", "linux/arm64"}, Artifact: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(48 * time.Hour)
	if err := server.SetLifecyclePolicy("team/app", untagged); err != nil {
		t.Fatal(err)
	}
	done, err := server.RunLifecycle("team/app")
	if err != nil || len(done.Expired) != 0 {
		t.Errorf("manifests of indexes, or referrers, expired: %v, %v", done.Expired, err)
	}
	wantImage(t, c, "team/app", "old", old)

	if err := server.SetLifecyclePolicy("team/app",
		oldAndUntagged); err != nil {
		t.Fatal(err)
	}
	done, err = server.RunLifecycle("team/app")
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{old.Root.Digest, old.Artifact.Digest, old.Manifests[0].Digest, old.Manifests[1].Digest}
	slices.Sort(want)
	if diff := cmp.Diff(want, done.Expired); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
	wantImage(t, c, "team/app", "kept", kept)
	wantStatus(t, c.registry("GET", "/v2/team/app/manifests/old"), 404)
	wantStatus(t, c.registry("GET", "/v2/team/app/manifests/"+old.Root.Digest.String()), 404)
}

func TestInvalidLifecyclePolicyIsRefused(t *testing.T) {
	server := ecrtest.New(ecrtest.Options{})
	if _, err := server.RunLifecycle("app"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no repository: %v", err)
	}
	if _, err := server.AddManifest("app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if done, err := server.RunLifecycle("app"); err != nil || len(done.Expired)+len(done.Archived) > 0 {
		t.Errorf("no policy: %v, %v", done, err)
	}
	if err := server.SetLifecyclePolicy("app", "nonsense"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.RunLifecycle("app"); err == nil || !strings.HasPrefix(err.Error(), "running the lifecycle policy of app: ") {
		t.Errorf("an invalid policy: %v", err)
	}
}

func TestRunLifecycleArchives(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now, TokenTTL: 1000 * time.Hour})
	desc, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.SetLifecyclePolicy("team/app", `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any",`+
		`"countType":"sinceImagePulled","countUnit":"days","countNumber":30},"action":{"type":"transition","targetStorageClass":"archive"}}]}`); err != nil {
		t.Fatal(err)
	}
	clock.Advance(31 * 24 * time.Hour)
	done, err := server.RunLifecycle("team/app")
	if err != nil || len(done.Expired) != 0 || !slices.Equal(done.Archived, []digest.Digest{desc.Digest}) {
		t.Errorf("archived %v, %v", done, err)
	}
	wantStatus(t, c.registry("GET", "/v2/team/app/manifests/v1"), 404)
}
