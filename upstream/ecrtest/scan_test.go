package ecrtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// scanned starts a fake with an image.
func scanned(t *testing.T) (*ecrtest.Running, *client, *types.ImageIdentifier) {
	t.Helper()
	server, c := start(t, ecrtest.Options{})
	desc, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	if err != nil {
		t.Fatal(err)
	}
	return server, c, &types.ImageIdentifier{ImageDigest: aws.String(desc.Digest.String())}
}

func TestScanFindingsHavePages(t *testing.T) {
	for _, enhanced := range []bool{false, true} {
		t.Run(fmt.Sprintf("enhanced %t", enhanced), func(t *testing.T) {
			server, c, id := scanned(t)
			scan := &ecrtest.Scan{Status: "COMPLETE", Completed: time.Unix(1_700_000_000, 0), Enhanced: enhanced}
			for i := range 230 {
				scan.Findings = append(scan.Findings, ecrtest.ScanFinding{Name: fmt.Sprintf("CVE-%d", i), Severity: "HIGH", Fix: "YES"})
			}
			scan.Findings[0].Severity, scan.Findings[1].Status = "CRITICAL", "SUPPRESSED"
			if err := server.SetScan("team/app", digest.Digest(*id.ImageDigest), scan); err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]string)
			var pages []int
			in := &ecr.DescribeImageScanFindingsInput{RepositoryName: aws.String("team/app"), ImageId: id}
			for p := ecr.NewDescribeImageScanFindingsPaginator(describer(c), in); p.HasMorePages(); {
				out, err := p.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if out.ImageScanStatus.Status != types.ScanStatusComplete || out.ImageScanFindings.FindingSeverityCounts["HIGH"] != 229 ||
					!out.ImageScanFindings.ImageScanCompletedAt.Equal(scan.Completed) {
					t.Errorf("got %+v, %+v", out.ImageScanStatus, out.ImageScanFindings.FindingSeverityCounts)
				}
				for _, f := range out.ImageScanFindings.Findings {
					seen[*f.Name] = string(f.Severity)
				}
				for _, f := range out.ImageScanFindings.EnhancedFindings {
					seen[*f.Title] = *f.Severity + " " + *f.Status + " " + *f.FixAvailable
				}
				pages = append(pages, len(out.ImageScanFindings.Findings)+len(out.ImageScanFindings.EnhancedFindings))
			}
			want := []string{"CRITICAL", "HIGH", "HIGH"}
			if enhanced {
				want = []string{"CRITICAL ACTIVE YES", "HIGH SUPPRESSED YES", "HIGH ACTIVE YES"}
			}
			if diff := cmp.Diff([]int{100, 100, 30}, pages) + cmp.Diff(want, []string{seen["CVE-0"], seen["CVE-1"], seen["CVE-229"]}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestImagesWithoutScansAreErrors(t *testing.T) {
	server, c, id := scanned(t)
	describe := func(in ecr.DescribeImageScanFindingsInput) error {
		in.RepositoryName = aws.String("team/app")
		_, err := describer(c).DescribeImageScanFindings(t.Context(), &in)
		return err
	}
	none := &types.ImageIdentifier{ImageDigest: aws.String(digest.FromString("none").String())}
	wantAPIError(t, describe(ecr.DescribeImageScanFindingsInput{ImageId: none}), "ImageNotFoundException")
	wantAPIError(t, describe(ecr.DescribeImageScanFindingsInput{ImageId: id}), "ScanNotFoundException")
	wantAPIError(t, describe(ecr.DescribeImageScanFindingsInput{ImageId: &types.ImageIdentifier{ImageTag: aws.String("v1")}}), "ScanNotFoundException")
	if err := server.SetScan("team/app", digest.Digest(*id.ImageDigest), &ecrtest.Scan{Status: "IN_PROGRESS", Description: "wait"}); err != nil {
		t.Fatal(err)
	}
	if err := describe(ecr.DescribeImageScanFindingsInput{ImageId: id}); err != nil {
		t.Error(err)
	}
	wantAPIError(t, describe(ecr.DescribeImageScanFindingsInput{ImageId: id, MaxResults: aws.Int32(1001)}), "InvalidParameterException")
	if err := server.SetScan("team/app", digest.Digest(*id.ImageDigest), nil); err != nil {
		t.Fatal(err)
	}
	wantAPIError(t, describe(ecr.DescribeImageScanFindingsInput{ImageId: id}), "ScanNotFoundException")
	server.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeImageScanFindings", Throttle: true})
	wantAPIError(t, describe(ecr.DescribeImageScanFindingsInput{ImageId: id}), "ThrottlingException")
	if err := server.SetScan("team/app", digest.Digest(*none.ImageDigest), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a scan of no image: %v", err)
	}
}

func TestSigningStatusIsThatOfEachProfile(t *testing.T) {
	server, c, id := scanned(t)
	in := &ecr.DescribeImageSigningStatusInput{RepositoryName: aws.String("team/app"), ImageId: id}
	const profile = "arn:aws:signer:us-east-1:123456789012:/signing-profiles/release"
	if err := server.SetSigning("team/app", digest.Digest(*id.ImageDigest),
		ecrtest.SigningStatus{Profile: profile, Status: "FAILED", FailureCode: "AccessDenied", FailureReason: "no permission"},
		ecrtest.SigningStatus{Profile: profile + "2", Status: "COMPLETE"}); err != nil {
		t.Fatal(err)
	}
	out, err := describer(c).DescribeImageSigningStatus(t.Context(), in)
	if err != nil || len(out.SigningStatuses) != 2 || out.SigningStatuses[0].Status != types.SigningStatusFailed ||
		*out.SigningStatuses[0].FailureReason != "no permission" || *out.SigningStatuses[1].SigningProfileArn != profile+"2" {
		t.Errorf("got %+v, %v", out, err)
	}
	in.ImageId = &types.ImageIdentifier{ImageDigest: aws.String(digest.FromString("none").String())}
	_, err = describer(c).DescribeImageSigningStatus(t.Context(), in)
	wantAPIError(t, err, "ImageNotFoundException")
}
