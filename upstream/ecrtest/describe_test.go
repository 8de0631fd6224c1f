package ecrtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestDescribeImagesFiltersByStatus(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	server, c := start(t, ecrtest.Options{Now: func() time.Time { return now }})
	added, err := server.AddImage("team/app", "v1", ecrtest.Image{Artifact: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, manifestOf(t, c, "v1")); err != nil {
		t.Fatal(err)
	}
	if err := server.SetImageState("team/app", added.Artifact.Digest, ecrtest.ImageState{
		Status: "ARCHIVED", Pushed: now.Add(-48 * time.Hour), Pulled: now.Add(-36 * time.Hour),
		Archived: now.Add(-time.Hour), Activated: now.Add(-24 * time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	artifact := types.ImageDetail{
		ImageDigest:            aws.String(added.Artifact.Digest.String()),
		ImageManifestMediaType: aws.String(ocispec.MediaTypeImageManifest),
		ImageStatus:            types.ImageStatusArchived,
		ImagePushedAt:          aws.Time(now.Add(-48 * time.Hour)),
		LastRecordedPullTime:   aws.Time(now.Add(-36 * time.Hour)),
		LastArchivedAt:         aws.Time(now.Add(-time.Hour)),
		LastActivatedAt:        aws.Time(now.Add(-24 * time.Hour)),
		RegistryId:             aws.String("123456789012"),
		RepositoryName:         aws.String("team/app"),
		SubjectManifestDigest:  aws.String(added.Root.Digest.String()),
	}
	image := types.ImageDetail{
		ImageDigest:            aws.String(added.Root.Digest.String()),
		ImageTags:              []string{"latest", "v1"},
		ImageManifestMediaType: aws.String(ocispec.MediaTypeImageManifest),
		ImageStatus:            types.ImageStatusActive,
		ImagePushedAt:          aws.Time(now),
		LastRecordedPullTime:   aws.Time(now), // by manifestOf
		RegistryId:             aws.String("123456789012"),
		RepositoryName:         aws.String("team/app"),
	}
	for status, want := range map[types.ImageStatusFilter][]types.ImageDetail{
		"":                              {image},
		types.ImageStatusFilterActive:   {image},
		types.ImageStatusFilterAny:      {image, artifact},
		types.ImageStatusFilterArchived: {artifact},
	} {
		out, err := describer(c).DescribeImages(t.Context(), &ecr.DescribeImagesInput{
			RepositoryName: aws.String("team/app"), Filter: &types.DescribeImagesFilter{ImageStatus: status}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.ImageDetails, cmpopts.IgnoreUnexported(types.ImageDetail{}),
			cmpopts.SortSlices(func(a, b types.ImageDetail) bool { return *a.ImageDigest < *b.ImageDigest })); diff != "" {
			t.Errorf("%q (-want +got):\n%s", status, diff)
		}
	}
}

// manifestOf pulls a manifest of team/app.
func manifestOf(t *testing.T, c *client, ref string) []byte {
	t.Helper()
	a := c.registry(http.MethodGet, "/v2/team/app/manifests/"+ref)
	wantStatus(t, a, http.StatusOK)
	return []byte(a.body)
}

func TestArchivedImageCannotBePulled(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	desc, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[string]int{"": http.StatusOK, "ARCHIVED": http.StatusNotFound, "ACTIVE": http.StatusOK} {
		if err := server.SetImageState("team/app", desc.Digest, ecrtest.ImageState{Status: status}); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, c.registry(http.MethodGet, "/v2/team/app/manifests/v1"), want)
		wantStatus(t, c.registry(http.MethodGet, "/v2/team/app/manifests/"+desc.Digest.String()), want)
	}
}

func TestSetImageStateNeedsAnImage(t *testing.T) {
	server := ecrtest.New(ecrtest.Options{})
	if _, err := server.AddManifest("app", "", ocispec.MediaTypeImageManifest, nil); err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"app", "other"} {
		if err := server.SetImageState(repo, digest.FromString("none"), ecrtest.ImageState{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want %v", repo, err, fs.ErrNotExist)
		}
	}
	if err := server.SetImageState("app", digest.FromString(""), ecrtest.ImageState{}); err != nil {
		t.Errorf("an empty manifest: %v", err)
	}
}

func TestDescribeImagesHasPages(t *testing.T) {
	const images = 230
	server, c := start(t, ecrtest.Options{})
	for i := range images {
		if _, err := server.AddManifest("team/app", "", ocispec.MediaTypeImageManifest, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		size  *int32
		pages []int
	}{
		{nil, []int{100, 100, 30}},
		{aws.Int32(115), []int{115, 115}},
		{aws.Int32(1000), []int{230}},
	} {
		in := &ecr.DescribeImagesInput{RepositoryName: aws.String("team/app"), MaxResults: test.size}
		seen := make(map[string]bool)
		var pages []int
		for p := ecr.NewDescribeImagesPaginator(describer(c), in); p.HasMorePages(); {
			out, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, len(out.ImageDetails))
			for _, detail := range out.ImageDetails {
				seen[*detail.ImageDigest] = true
			}
		}
		if diff := cmp.Diff(test.pages, pages); diff != "" || len(seen) != images {
			t.Errorf("%d images in pages (-want +got):\n%s", len(seen), diff)
		}
	}
}

func TestDescribeImagesByDigestAndTag(t *testing.T) {
	fake, c := start(t, ecrtest.Options{})
	image, err := fake.AddImage("team/app", "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 10)}}})
	if err != nil {
		t.Fatal(err)
	}
	dgst := image.Root.Digest.String()
	for name, test := range map[string]struct {
		id types.ImageIdentifier
		ok bool
	}{
		"by digest":                  {types.ImageIdentifier{ImageDigest: &dgst}, true},
		"by tag":                     {types.ImageIdentifier{ImageTag: aws.String("v1")}, true},
		"by both":                    {types.ImageIdentifier{ImageDigest: &dgst, ImageTag: aws.String("v1")}, true},
		"by a tag of another digest": {types.ImageIdentifier{ImageDigest: &dgst, ImageTag: aws.String("v2")}, false},
		"by a tag that is not there": {types.ImageIdentifier{ImageTag: aws.String("v2")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := describer(c).DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: aws.String("team/app"), ImageIds: []types.ImageIdentifier{test.id}})
			if !test.ok {
				wantAPIError(t, err, "ImageNotFoundException")
				return
			}
			if err != nil || len(out.ImageDetails) != 1 || *out.ImageDetails[0].ImageDigest != dgst {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}

func TestDescribeImagesRefusesInvalidParameters(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	c.addBlob(ecrtest.Bytes(nil))
	for name, in := range map[string]ecr.DescribeImagesInput{
		"page too large": {MaxResults: aws.Int32(1001)},
		"page too small": {MaxResults: aws.Int32(0)},
		"foreign token":  {NextToken: aws.String("?")},
		"page of some":   {MaxResults: aws.Int32(10), ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("v1")}}},
	} {
		t.Run(name, func(t *testing.T) {
			in.RepositoryName = aws.String("team/app")
			_, err := describer(c).DescribeImages(t.Context(), &in)
			wantAPIError(t, err, "InvalidParameterException")
		})
	}
}
