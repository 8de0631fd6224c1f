package ecr

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Statuses of a [Scan] beside those of ECR (API reference, ImageScanStatus).
const (
	// ScanNotFound says that ECR has no scan of the image (ScanNotFoundException).
	ScanNotFound = "SCAN_NOT_FOUND"
	// ScanImageNotFound says that ECR has no such image, or no such repository.
	ScanImageNotFound = "IMAGE_NOT_FOUND"
)

// Scan is what ECR says about the scan of an image.
type Scan struct {
	Status      string // ECR's word, such as COMPLETE, or one of the above
	Description string
	Completed   time.Time // of the last scan; zero if ECR does not tell
	// Findings are the counts of the findings. They may be there whatever the status.
	Findings []Finding
	// More says that there are more findings than were read.
	More bool
}

// Finding is a count of findings that are alike.
type Finding struct {
	Severity string // ECR's word, such as CRITICAL or UNTRIAGED; there may be new ones
	// Fix is whether there is a version without the vulnerability: YES, NO or PARTIAL (some of the packages), or "" for basic
	// scanning, which does not tell.
	Fix string
	// Status is ACTIVE, SUPPRESSED (by a rule of the account), CLOSED (mended), or "" for basic scanning.
	Status string
	Count  int
}

const (
	// scanPage is ECR's own page. An enhanced finding has some 5 kB, and maxAnswer bounds a page.
	scanPage = 100
	// maxScanPages bounds the findings of an image to 5,000, and the calls for them.
	maxScanPages = 50
	// scanTimeout bounds all pages.
	scanTimeout = time.Minute
)

// Scan reads the findings of an image's scan, basic or enhanced. An image that was not scanned is not an
// error, and an image that ECR does not have is none either: see [Scan.Status]. The error is
// fs.ErrPermission if the credentials lack ecr:DescribeImageScanFindings; [reply.IsThrottled] tells
// whether there were too many requests. It is an [offline.Error] while the registry is offline. Requests
// of clients go first.
func (r *Registry) Scan(ctx context.Context, repository string, dgst digest.Digest) (Scan, error) {
	ctx, leave, err := r.gate.Enter(ctx)
	if err != nil {
		return Scan{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeoutCause(pace.Background(ctx), scanTimeout, reply.ErrTimeout)
	defer cancel()
	until, _ := ctx.Deadline()
	if _, err := r.limiter.Wait(ctx, pace.Manifests, until); err != nil { // a registry that throttles pulls is not asked for more
		return Scan{}, err
	}
	scan, err := readScan(ctx, r.api, r.account, repository, dgst)
	var failed *apiError
	if errors.As(err, &failed) {
		switch failed.code() {
		case "ScanNotFoundException":
			return Scan{Status: ScanNotFound}, nil
		case "ImageNotFoundException", "RepositoryNotFoundException":
			return Scan{Status: ScanImageNotFound}, nil
		}
	}
	return scan, err
}

// readScan reads all pages of findings, and counts them.
func readScan(ctx context.Context, a *api, account *string, repository string, dgst digest.Digest) (Scan, error) {
	in := &ecr.DescribeImageScanFindingsInput{
		RegistryId:     account,
		RepositoryName: &repository,
		ImageId:        &types.ImageIdentifier{ImageDigest: aws.String(dgst.String())},
		MaxResults:     aws.Int32(scanPage),
	}
	what := "describe the scan findings of " + repository + "@" + dgst.String()
	var scan Scan
	counts := make(map[Finding]int)
	for range maxScanPages {
		page, err := call(ctx, a, what, (*ecr.Client).DescribeImageScanFindings, in)
		if err != nil {
			return Scan{}, err
		}
		if page.ImageScanStatus == nil || page.ImageScanStatus.Status == "" {
			return Scan{}, fmt.Errorf("%s: the answer has no status", what)
		}
		scan.Status, scan.Description = string(page.ImageScanStatus.Status), aws.ToString(page.ImageScanStatus.Description)
		if found := page.ImageScanFindings; found != nil {
			scan.Completed = aws.ToTime(found.ImageScanCompletedAt)
			count(counts, found)
		}
		if scan.More = aws.ToString(page.NextToken) != ""; !scan.More {
			break
		}
		in.NextToken = page.NextToken
	}
	for finding, n := range counts {
		finding.Count = n
		scan.Findings = append(scan.Findings, finding)
	}
	return scan, nil
}

// count adds the findings of a page.
func count(counts map[Finding]int, page *types.ImageScanFindings) {
	for _, f := range page.Findings {
		counts[Finding{Severity: string(f.Severity)}]++
	}
	for _, f := range page.EnhancedFindings {
		counts[Finding{Severity: aws.ToString(f.Severity), Fix: aws.ToString(f.FixAvailable), Status: aws.ToString(f.Status)}]++
	}
}
