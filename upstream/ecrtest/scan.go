package ecrtest

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
)

// Scans and signatures of images.
type (
	// Scan is the result of a scan of an image.
	Scan = registry.Scan
	// ScanFinding is a vulnerability.
	ScanFinding = registry.ScanFinding
	// SigningStatus is the state of ECR's managed signing of an image with one profile.
	SigningStatus = registry.SigningStatus
)

// SetScan sets what DescribeImageScanFindings says about an image, or, for nil, makes it one that was not
// scanned, as every image is at first. The error is [fs.ErrNotExist] if there is no such image.
func (s *Server) SetScan(repo string, dgst digest.Digest, scan *Scan) error {
	if err := s.inRepository(repo, func(r *registry.Repository) error { return r.SetScan(dgst, scan) }); err != nil {
		return fmt.Errorf("setting the scan of %s@%s: %w", repo, dgst, err)
	}
	return nil
}

// SetSigning sets what DescribeImageSigningStatus says about an image. It signs nothing. The error is
// [fs.ErrNotExist] if there is no such image.
func (s *Server) SetSigning(repo string, dgst digest.Digest, statuses ...SigningStatus) error {
	if err := s.inRepository(repo, func(r *registry.Repository) error { return r.SetSigning(dgst, statuses) }); err != nil {
		return fmt.Errorf("setting the signing status of %s@%s: %w", repo, dgst, err)
	}
	return nil
}

// SetRevoked replaces what AWS Signer says is revoked (GetRevocationStatus): ARNs of jobs and of versions of
// profiles, and hashes of certificates.
func (s *Server) SetRevoked(entities ...string) { s.registry.SetRevoked(entities) }
