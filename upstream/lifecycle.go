package upstream

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

const (
	// imagePage is the largest page that ECR gives (API reference, DescribeImages).
	imagePage = 1000
	// maxImagePages bounds what is held of one repository: 100,000 images, some
	// tens of MB.
	maxImagePages = 100
	// lifecycleTimeout bounds a whole reading, which others of the region wait for.
	lifecycleTimeout = 5 * time.Minute
)

// Lifecycle reads a repository's lifecycle policy, and all its images as ECR
// describes them, archived ones included. What an index lists is not in that:
// Children is nil. Fetching every index instead might count as a pull, and so
// change what the policy at ECR goes by.
//
// It is fs.ErrNotExist where there is no policy, no repository, or an upstream
// without ECR authentication, and fs.ErrPermission where the credentials lack
// ecr:GetLifecyclePolicy or ecr:DescribeImages. One reading runs at a time in
// each region; others wait for it, or for ctx to end.
func (r *Registry) Lifecycle(ctx context.Context, repository string) (lifecycle.Policy, []lifecycle.Image, error) {
	auth, ok := r.auth.(*ecrAuth)
	if !ok {
		return lifecycle.Policy{}, nil, fmt.Errorf("lifecycle policies at %s: %w", r.host, fs.ErrNotExist)
	}
	if err := auth.api.reading.Acquire(ctx, 1); err != nil {
		return lifecycle.Policy{}, nil, context.Cause(ctx)
	}
	defer auth.api.reading.Release(1)
	ctx, cancel := context.WithTimeoutCause(pace.Background(ctx), lifecycleTimeout, reply.ErrTimeout)
	defer cancel()
	until, _ := ctx.Deadline()
	if _, err := r.requests.Wait(ctx, pace.Unattended, until); err != nil { // what throttles pulls has enough to do
		return lifecycle.Policy{}, nil, err
	}
	var account *string // nil means the one of the credentials
	if auth.account != "" {
		account = &auth.account
	}
	policy, err := auth.api.lifecyclePolicy(ctx, account, repository)
	if err != nil {
		return lifecycle.Policy{}, nil, err
	}
	images, err := auth.api.images(ctx, account, repository)
	if err != nil {
		return lifecycle.Policy{}, nil, err
	}
	return policy, images, nil
}

func (a *ecrAPI) lifecyclePolicy(ctx context.Context, account *string, repository string) (lifecycle.Policy, error) {
	in := &ecr.GetLifecyclePolicyInput{RegistryId: account, RepositoryName: &repository}
	out, err := callECR(ctx, a, "get the lifecycle policy of "+repository, (*ecr.Client).GetLifecyclePolicy, in)
	if err != nil {
		return lifecycle.Policy{}, err
	}
	policy, err := lifecycle.Parse([]byte(aws.ToString(out.LifecyclePolicyText)))
	if err != nil {
		return lifecycle.Policy{}, fmt.Errorf("%s: %w", repository, err)
	}
	return policy, nil
}

// images returns all images or an error: a part of them would make an old image
// look like the latest one, and an index that is not in it would hold nothing.
func (a *ecrAPI) images(ctx context.Context, account *string, repository string) ([]lifecycle.Image, error) {
	in := &ecr.DescribeImagesInput{
		RegistryId:     account,
		RepositoryName: &repository,
		MaxResults:     aws.Int32(imagePage),
		Filter:         &types.DescribeImagesFilter{ImageStatus: types.ImageStatusFilterAny},
	}
	what := "describe the images of " + repository
	var images []lifecycle.Image
	for range maxImagePages {
		page, err := callECR(ctx, a, what, (*ecr.Client).DescribeImages, in)
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
	img.Index = kind == ocispec.MediaTypeImageIndex || kind == mediaTypeDockerList
	return img, nil
}
