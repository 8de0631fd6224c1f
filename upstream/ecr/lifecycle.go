package ecr

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

const (
	// imagePage is the largest page that ECR gives (API reference, DescribeImages).
	imagePage = 1000
	// maxImagePages bounds the images of one repository to 100,000, some tens of MB.
	maxImagePages = 100
	// lifecycleTimeout bounds a whole reading. Others of the region wait for it.
	lifecycleTimeout = 5 * time.Minute
)

// readPolicy reads the lifecycle policy of a repository, without its images. A nil
// account means that of the credentials.
func readPolicy(ctx context.Context, a *api, account *string, repository string) (Lifecycle, error) {
	in := &ecr.GetLifecyclePolicyInput{RegistryId: account, RepositoryName: &repository}
	out, err := call(ctx, a, "get the lifecycle policy of "+repository, (*ecr.Client).GetLifecyclePolicy, in)
	if err != nil {
		return Lifecycle{}, err
	}
	policy, err := lifecycle.Parse([]byte(aws.ToString(out.LifecyclePolicyText)))
	if err != nil {
		return Lifecycle{}, fmt.Errorf("%s: %w", repository, err)
	}
	return Lifecycle{Policy: policy, Evaluated: aws.ToTime(out.LastEvaluatedAt)}, nil
}

// readImages returns all images or an error. With a part of them, an old image could
// look like the latest one, and the children of a missing index unused.
func readImages(ctx context.Context, a *api, account *string, repository string) ([]lifecycle.Image, error) {
	in := &ecr.DescribeImagesInput{
		RegistryId:     account,
		RepositoryName: &repository,
		MaxResults:     aws.Int32(imagePage),
		Filter:         &types.DescribeImagesFilter{ImageStatus: types.ImageStatusFilterAny},
	}
	what := "describe the images of " + repository
	images := []lifecycle.Image{} // not nil: they were read
	for range maxImagePages {
		page, err := call(ctx, a, what, (*ecr.Client).DescribeImages, in)
		if err != nil {
			return nil, err
		}
		for _, detail := range page.ImageDetails {
			img, err := newImage(detail)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			images = append(images, img)
		}
		if aws.ToString(page.NextToken) == "" {
			return images, nil
		}
		in.NextToken = page.NextToken
	}
	return nil, fmt.Errorf("%s: more than %d pages", what, maxImagePages)
}

// readPushed reads when an image was pushed.
func readPushed(ctx context.Context, a *api, account *string, repository string, dgst digest.Digest) (time.Time, error) {
	in := &ecr.DescribeImagesInput{
		RegistryId:     account,
		RepositoryName: &repository,
		ImageIds:       []types.ImageIdentifier{{ImageDigest: aws.String(dgst.String())}},
	}
	what := "describe " + repository + "@" + dgst.String()
	page, err := call(ctx, a, what, (*ecr.Client).DescribeImages, in)
	if err != nil {
		return time.Time{}, err
	}
	for _, detail := range page.ImageDetails {
		if at := aws.ToTime(detail.ImagePushedAt); aws.ToString(detail.ImageDigest) == dgst.String() && !at.IsZero() {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: ECR does not tell when it was pushed: %w", what, fs.ErrNotExist)
}

func newImage(d types.ImageDetail) (lifecycle.Image, error) {
	dgst, err := digest.Parse(aws.ToString(d.ImageDigest))
	if err != nil {
		return lifecycle.Image{}, fmt.Errorf("digest %q: %w", aws.ToString(d.ImageDigest), err)
	}
	img := lifecycle.Image{
		Digest:    dgst,
		Tags:      d.ImageTags,
		Pushed:    aws.ToTime(d.ImagePushedAt),
		Pulled:    aws.ToTime(d.LastRecordedPullTime),
		Archived:  aws.ToTime(d.LastArchivedAt),
		Activated: aws.ToTime(d.LastActivatedAt),
		Status:    string(d.ImageStatus),
		Subject:   digest.Digest(aws.ToString(d.SubjectManifestDigest)),
	}
	kind := aws.ToString(d.ImageManifestMediaType)
	img.Index = kind == ocispec.MediaTypeImageIndex || kind == manifestlist.MediaTypeManifestList
	return img, nil
}
