package daemon

import (
	"context"
	"fmt"

	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/findings"
	"github.com/larder-registry/larder/proxy/policy/signed/awssigner"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr"
)

// scans reads what ECR's scans found. It is a findings.Scans.
type scans struct {
	registry func(host string) (*upstream.Registry, error)
}

// Scan is for findings.Scans.
func (s scans) Scan(ctx context.Context, image policy.Image) (findings.Scan, error) {
	registry, err := s.registry(image.Host)
	if err != nil {
		return findings.Scan{}, err
	}
	at := registry.ECR()
	if at == nil {
		return findings.Scan{Status: findings.NoScanner}, nil
	}
	found, err := at.Scan(ctx, image.Repository, image.Digest)
	if err != nil {
		return findings.Scan{}, err
	}
	scan := findings.Scan{Status: found.Status, Description: found.Description, Completed: found.Completed, More: found.More}
	switch found.Status {
	case ecr.ScanNotFound:
		scan.Status = findings.NotScanned
	case ecr.ScanImageNotFound:
		scan.Status = findings.NoImage
	}
	for _, f := range found.Findings {
		scan.Findings = append(scan.Findings, findings.Finding(f))
	}
	return scan, nil
}

// revocations asks AWS Signer, with the credentials of an image's registry. It is an awssigner.API.
type revocations struct {
	registry func(host string) (*upstream.Registry, error)
}

// Revoked is for awssigner.API.
func (r revocations) Revoked(ctx context.Context, image policy.Image, q awssigner.Question) ([]string, error) {
	registry, err := r.registry(image.Host)
	if err != nil {
		return nil, err
	}
	if registry.ECR() == nil {
		return nil, fmt.Errorf("AWS Signer cannot be asked about %s: only registries of ECR have AWS credentials", image.Host)
	}
	return registry.ECR().Revoked(ctx, ecr.SignerSignature{
		Region: q.Region, Platform: awssigner.Platform, ProfileVersion: q.ProfileVersion, Job: q.Job, Signed: q.Signed, CertificateHashes: q.CertificateHashes,
	})
}
