package ecr

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/reply"
)

var manifestDigest = digest.FromString(manifestBody)

// sorted returns a scan whose findings are in order.
func sorted(s Scan) Scan {
	slices.SortFunc(s.Findings, func(a, b Finding) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return s
}

func TestScanCountsTheFindingsOfAllPages(t *testing.T) {
	server := startECR(t)
	at := time.Unix(1_700_000_000, 0).UTC()
	finding := func(severity, fix, status string, n int) (all []ecrtest.ScanFinding) {
		for i := range n {
			all = append(all, ecrtest.ScanFinding{Name: fmt.Sprintf("CVE-%d", i), Severity: severity, Fix: fix, Status: status})
		}
		return all
	}
	for name, test := range map[string]struct {
		scan ecrtest.Scan
		want Scan
	}{
		"basic": {
			ecrtest.Scan{Status: "COMPLETE", Description: "done", Completed: at, Findings: append(finding("HIGH", "", "", 150), finding("NEW", "", "", 1)...)},
			Scan{Status: "COMPLETE", Description: "done", Completed: at, Findings: []Finding{{"HIGH", "", "", 150}, {"NEW", "", "", 1}}},
		},
		"enhanced": {
			ecrtest.Scan{Status: "ACTIVE", Completed: at, Enhanced: true, Findings: slices.Concat(finding("HIGH", "YES", "", 120), finding("HIGH", "NO", "SUPPRESSED", 120))},
			Scan{Status: "ACTIVE", Completed: at, Findings: []Finding{{"HIGH", "NO", "SUPPRESSED", 120}, {"HIGH", "YES", "ACTIVE", 120}}},
		},
		"more than is read": {
			ecrtest.Scan{Status: "ACTIVE", Completed: at, Enhanced: true, Findings: finding("LOW", "YES", "", 5001)},
			Scan{Status: "ACTIVE", Completed: at, Findings: []Finding{{"LOW", "YES", "ACTIVE", 5000}}, More: true},
		},
		"a status without findings": {ecrtest.Scan{Status: "UNSUPPORTED_IMAGE"}, Scan{Status: "UNSUPPORTED_IMAGE"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := server.SetScan(repo, manifestDigest, &test.scan); err != nil {
				t.Fatal(err)
			}
			got, err := server.Scan(t.Context(), repo, manifestDigest)
			if diff := gocmp.Diff(sorted(test.want), sorted(got)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestAnImageThatWasNotScannedIsNoError(t *testing.T) {
	server := startECR(t)
	for _, test := range []struct {
		repository string
		digest     digest.Digest
		want       string
	}{
		{repo, manifestDigest, ScanNotFound},
		{repo, digest.FromString("none"), ScanImageNotFound},
		{"team/none", manifestDigest, ScanImageNotFound},
	} {
		got, err := server.Scan(t.Context(), test.repository, test.digest)
		if err != nil || got.Status != test.want || got.Findings != nil {
			t.Errorf("%s@%s: got %+v, %v", test.repository, test.digest, got, err)
		}
	}
}

func TestAScanThatIsNotKnownIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		fault ecrtest.Fault
		is    func(error) bool
	}{
		"throttled":         {ecrtest.Fault{Throttle: true}, reply.IsThrottled},
		"throttled page":    {ecrtest.Fault{Throttle: true, Skip: 1}, reply.IsThrottled},
		"denied":            {ecrtest.Fault{Code: "AccessDeniedException"}, func(err error) bool { return errors.Is(err, fs.ErrPermission) }},
		"a failure of AWS":  {ecrtest.Fault{Status: 500, Code: "ServerException"}, func(err error) bool { return err != nil }},
		"no status":         {ecrtest.Fault{Status: 200, Body: "{}"}, func(err error) bool { return strings.Contains(err.Error(), "no status") }},
		"a broken answer":   {ecrtest.Fault{Status: 200, Body: "{"}, func(err error) bool { return err != nil }},
		"no answer in time": {ecrtest.Fault{Status: 400, Code: "RequestTimeout"}, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			server := startECR(t)
			scan := ecrtest.Scan{Status: "ACTIVE", Findings: make([]ecrtest.ScanFinding, 150)}
			if err := server.SetScan(repo, manifestDigest, &scan); err != nil {
				t.Fatal(err)
			}
			test.fault.On, test.fault.Operation = ecrtest.API, "DescribeImageScanFindings"
			server.Inject(test.fault)
			got, err := server.Scan(t.Context(), repo, manifestDigest)
			if err == nil || got.Status != "" || !test.is(err) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestSignaturesAreRevokedAsAWSSignerSays(t *testing.T) {
	server := startECR(t)
	t.Setenv("AWS_ENDPOINT_URL_SIGNER", server.Endpoint)
	const profile = "arn:aws:signer:eu-west-1:123456789012:/signing-profiles/release/abcdefgh12"
	signature := SignerSignature{
		Region: "eu-west-1", Platform: "Notation-OCI-SHA384-ECDSA", ProfileVersion: profile, Job: "arn:aws:signer:eu-west-1:123456789012:/signing-jobs/1",
		Signed: time.Unix(1_700_000_000, 0), CertificateHashes: []string{"aa", "bb"},
	}
	if got, err := server.Revoked(t.Context(), signature); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
	server.SetRevoked("bb", profile, "other")
	got, err := server.Revoked(t.Context(), signature)
	slices.SortFunc(got, cmp.Compare[string])
	if !slices.Equal(got, []string{profile, "bb"}) || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	asked := false
	for call := range server.AWS().Calls() {
		asked = asked || call.Action == "signer:GetRevocationStatus" && call.Region == "eu-west-1"
	}
	if !asked {
		t.Errorf("AWS Signer was not asked in the region of the profile: %v", server.AWS().Calls())
	}
	remove := server.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "GetRevocationStatus", Throttle: true})
	if _, err := server.Revoked(t.Context(), signature); !reply.IsThrottled(err) {
		t.Errorf("throttled: %v", err)
	}
	remove()
}

// What is asked for decisions is not asked of a registry that is offline.
func TestOfflineRegistriesAreNotAskedAboutImages(t *testing.T) {
	server := startECR(t)
	cfg := configOf(t, server.Host())
	cfg.APIEndpoint = server.Endpoint
	refusal := errors.New("offline")
	cfg.Gate = offline.New(func() error { return refusal })
	registry := newTestClient(t, nil).Registry(cfg, server.limiter)
	server.ResetStats()
	if _, err := registry.Scan(t.Context(), repo, manifestDigest); !errors.Is(err, refusal) {
		t.Errorf("the scan: %v", err)
	}
	if _, err := registry.Revoked(t.Context(), SignerSignature{Region: "us-east-1"}); !errors.Is(err, refusal) {
		t.Errorf("the revocation: %v", err)
	}
	if n := server.Stats().Requests[ecrtest.API]; n != 0 {
		t.Errorf("%d calls", n)
	}
}
