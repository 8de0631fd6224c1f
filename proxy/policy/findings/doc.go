// Package findings decides whether the known vulnerabilities of an image are few enough, by what Amazon ECR's
// scans found: basic scanning, and enhanced scanning by Amazon Inspector.
//
// A finding counts unless a rule of the account suppresses it, or it is closed. Findings of basic scanning do
// not tell whether there is a fix; with [Options.OnlyFixable] they count as if there were one. A severity
// that is not known counts as the highest one, as there may be new ones (ECR's API reference keeps them
// open); UNDEFINED and UNTRIAGED, which nobody has rated yet, count as medium.
//
// What a scan's status means:
//
//	COMPLETE, ACTIVE             the findings decide
//	IN_PROGRESS, PENDING         bad findings refuse; else it is not known yet, unless unscanned images are allowed
//	FAILED, UNSUPPORTED_IMAGE, SCAN_ELIGIBILITY_EXPIRED, FINDINGS_UNAVAILABLE, LIMIT_EXCEEDED, IMAGE_ARCHIVED,
//	no scan, no such image, any other status
//	                             bad findings refuse; else the image is unscanned
//
// An index has no scan. The platform that is pulled is asked about.
package findings
