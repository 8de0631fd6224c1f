package ecrapi

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
)

// scanFinding is a finding of a basic scan in an answer.
type scanFinding struct {
	Name     string `json:"name"`
	Severity string `json:"severity"`
	URI      string `json:"uri"`
}

// enhancedFinding is a finding of an enhanced scan in an answer.
type enhancedFinding struct {
	FindingARN   string `json:"findingArn"`
	Title        string `json:"title"`
	Severity     string `json:"severity"`
	Status       string `json:"status"`
	FixAvailable string `json:"fixAvailable"`
	Type         string `json:"type"`
}

// scanFindings are the findings in an answer.
type scanFindings struct {
	Completed float64           `json:"imageScanCompletedAt,omitempty"`
	Counts    map[string]int    `json:"findingSeverityCounts"`
	Findings  []scanFinding     `json:"findings,omitempty"`
	Enhanced  []enhancedFinding `json:"enhancedFindings,omitempty"`
}

type scanStatus struct {
	Status      string `json:"status"`
	Description string `json:"description,omitempty"`
}

// describeImageScanFindings sends a page of the findings of an image's scan.
func (a *API) describeImageScanFindings(r request) {
	var in struct {
		repositoryName
		ImageID    imageID `json:"imageId"`
		MaxResults *int    `json:"maxResults"`
		NextToken  string  `json:"nextToken"`
	}
	repo := a.read(r, "ecr:DescribeImageScanFindings", &in, &in.repositoryName)
	if repo == nil {
		return
	}
	id := resolve(repo, in.ImageID)
	scan, ok, image := repo.Scan(id.ImageDigest)
	switch {
	case !image:
		r.noImage(id, in.repositoryName)
		return
	case !ok:
		r.fail("ScanNotFoundException", fmt.Sprintf("Image scan does not exist for the image with '%s' in the repository with name '%s' in the registry with id '%s'",
			id, in.RepositoryName, in.RegistryID))
		return
	}
	places := make([]string, len(scan.Findings)) // keys that sort as the findings stand
	for i := range places {
		places[i] = fmt.Sprintf("%06d", i)
	}
	part, next, ok := page(r, places, in.MaxResults, in.NextToken, func(place string) string { return place })
	if !ok {
		return
	}
	found := scanFindings{Completed: recorded(scan.Completed), Counts: make(map[string]int)}
	for _, f := range scan.Findings {
		found.Counts[f.Severity]++
	}
	for _, place := range part {
		i, _ := strconv.Atoi(place)
		found.add(scan.Findings[i], scan.Enhanced)
	}
	r.reply(struct {
		repositoryName
		ImageID   imageID      `json:"imageId"`
		Status    scanStatus   `json:"imageScanStatus"`
		Findings  scanFindings `json:"imageScanFindings"`
		NextToken string       `json:"nextToken,omitempty"`
	}{in.repositoryName, id, scanStatus{scan.Status, scan.Description}, found, next})
}

// add adds a finding of a scan.
func (s *scanFindings) add(f registry.ScanFinding, enhanced bool) {
	if !enhanced {
		s.Findings = append(s.Findings, scanFinding{f.Name, f.Severity, "https://example.com/" + f.Name})
		return
	}
	status := f.Status
	if status == "" {
		status = "ACTIVE"
	}
	s.Enhanced = append(s.Enhanced, enhancedFinding{
		FindingARN: "arn:aws:inspector2:::finding/" + f.Name, Title: f.Name, Severity: f.Severity, Status: status, FixAvailable: f.Fix,
		Type: "PACKAGE_VULNERABILITY",
	})
}

// signingStatus is the state of managed signing in an answer.
type signingStatus struct {
	Profile       string `json:"signingProfileArn"`
	Status        string `json:"status"`
	FailureCode   string `json:"failureCode,omitempty"`
	FailureReason string `json:"failureReason,omitempty"`
}

// describeImageSigningStatus sends the states of ECR's managed signing of an image.
func (a *API) describeImageSigningStatus(r request) {
	var in struct {
		repositoryName
		ImageID imageID `json:"imageId"`
	}
	repo := a.read(r, "ecr:DescribeImageSigningStatus", &in, &in.repositoryName)
	if repo == nil {
		return
	}
	id := resolve(repo, in.ImageID)
	all, image := repo.Signing(id.ImageDigest)
	if !image {
		r.noImage(id, in.repositoryName)
		return
	}
	statuses := []signingStatus{} // an array, even if empty
	for _, s := range all {
		statuses = append(statuses, signingStatus(s))
	}
	r.reply(struct {
		repositoryName
		ImageID  imageID         `json:"imageId"`
		Statuses []signingStatus `json:"signingStatuses"`
	}{in.repositoryName, id, statuses})
}

// resolve adds the digest of an image that is named by a tag alone.
func resolve(repo *registry.Repository, id imageID) imageID {
	if id.ImageDigest == "" {
		id.ImageDigest = repo.Resolve(id.ImageTag)
	}
	return id
}

// noImage answers that there is no such image.
func (r request) noImage(id imageID, in repositoryName) {
	r.fail("ImageNotFoundException", fmt.Sprintf("The image with imageId %s does not exist within the repository with name '%s' in the registry with id '%s'",
		id, in.RepositoryName, in.RegistryID))
}

// String returns the id in the form of ECR's messages.
func (id imageID) String() string {
	return fmt.Sprintf("{imageDigest:'%s', imageTag:'%s'}", id.ImageDigest, id.ImageTag)
}

// revocationStatus answers GetRevocationStatus of AWS Signer: which of the job, the profile and the
// certificates in the query are revoked.
func (a *API) revocationStatus(r request) {
	if !r.permit("signer:GetRevocationStatus", "*") {
		return
	}
	query := r.Request.URL.Query()
	for _, required := range []string{"certificateHashes", "jobArn", "platformId", "profileVersionArn", "signatureTimestamp"} {
		if query.Get(required) == "" {
			r.fail("ValidationException", "there is no "+required)
			return
		}
	}
	entities := slices.Concat(query["jobArn"], query["profileVersionArn"], query["certificateHashes"])
	r.reply(struct {
		Revoked []string `json:"revokedEntities"`
	}{a.opts.Registry.Revoked(entities)})
}
