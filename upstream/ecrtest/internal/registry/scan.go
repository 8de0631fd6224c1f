package registry

import (
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Scan is the result of a scan of an image. ECR scans images; an index has no scan.
type Scan struct {
	Status      string // such as COMPLETE or ACTIVE
	Description string
	Completed   time.Time
	Enhanced    bool // by Amazon Inspector; otherwise ECR's basic scanning
	Findings    []ScanFinding
}

// ScanFinding is a vulnerability.
type ScanFinding struct {
	Name     string // such as CVE-2026-1234
	Severity string // such as CRITICAL
	// Fix and Status are of enhanced scans: YES, NO or PARTIAL; ACTIVE (if empty), SUPPRESSED or CLOSED.
	Fix, Status string
}

// SigningStatus is the state of ECR's managed signing of an image with one profile.
type SigningStatus struct {
	Profile                    string // ARN of the signing profile
	Status                     string // IN_PROGRESS, COMPLETE or FAILED
	FailureCode, FailureReason string
}

// SetScan sets or, for nil, removes the scan of an image. The error is [fs.ErrNotExist] if there is no such
// image.
func (r *Repository) SetScan(dgst digest.Digest, scan *Scan) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.manifests[dgst]; !ok {
		return fs.ErrNotExist
	}
	delete(r.scans, dgst)
	if scan != nil {
		kept := *scan
		kept.Findings = slices.Clone(scan.Findings)
		r.scans[dgst] = kept
	}
	return nil
}

// Scan returns the scan of an image. image is false if there is no such image, and ok if it has no scan. The
// caller does not change it.
func (r *Repository) Scan(dgst digest.Digest) (scan Scan, ok, image bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, image = r.manifests[dgst]
	scan, ok = r.scans[dgst]
	return scan, ok, image
}

// SetSigning sets the states of ECR's managed signing of an image. The error is [fs.ErrNotExist] if there is
// no such image.
func (r *Repository) SetSigning(dgst digest.Digest, statuses []SigningStatus) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.manifests[dgst]; !ok {
		return fs.ErrNotExist
	}
	r.signing[dgst] = slices.Clone(statuses)
	return nil
}

// Signing returns the states of ECR's managed signing of an image. image is false if there is no such image.
func (r *Repository) Signing(dgst digest.Digest) (statuses []SigningStatus, image bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, image = r.manifests[dgst]
	return r.signing[dgst], image
}

// SetRevoked replaces the list of what AWS Signer has revoked: ARNs of jobs and profiles, and hashes of
// certificates.
func (g *Registry) SetRevoked(entities []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revoked = slices.Clone(entities)
}

// Revoked returns which of the entities are revoked.
func (g *Registry) Revoked(entities []string) []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	revoked := []string{} // an array, even if empty
	for _, e := range entities {
		if slices.Contains(g.revoked, e) {
			revoked = append(revoked, e)
		}
	}
	return revoked
}
