package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// answers returns the status of an answer to a GET.
func (s *inside) answers(t *testing.T, path string) int {
	t.Helper()
	resp, err := s.client.Get("http://" + s.listen + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestReloadAppliesThePolicyAtOnce(t *testing.T) {
	s, _ := serveInside(t, "")
	s.addImage(t, "team/app", 1000)
	for _, step := range []struct {
		rules string
		want  int
	}{
		{"", http.StatusOK},
		{"policy: [{match: \"*/team/*\", mode: enforce, age: 100h}]\n", http.StatusForbidden},
		{"policy: [{match: \"*/team/*\", mode: warn, age: 100h}]\n", http.StatusOK},
		{"policy: [{match: \"*/team/*\", mode: enforce, age: 200h}]\n", http.StatusForbidden},
		{"policy: [{match: \"*/team/*\", mode: enforce, age: 1ms}]\n", http.StatusOK},
		{"policy: [{match: \"*/team/app\"}, {match: \"*/team/*\", mode: enforce, age: 100h}]\n", http.StatusOK},
	} {
		s.reload(t, step.rules)
		if got := s.answers(t, "/v2/team/app/manifests/v1"); got != step.want {
			t.Errorf("%q: %d, want %d", step.rules, got, step.want)
		}
	}
	if n := value(s.metrics(t), "larder_policy_decisions_total", "mode", "enforce", "result", "refused"); n != 2 {
		t.Errorf("%v refusals are counted", n)
	}
	s.daemon.Reload(config.Load(writeConfig(t, "policy: [{mode: enforce}]\n")))
	if got := s.answers(t, "/v2/team/app/manifests/v1"); got != http.StatusOK {
		t.Errorf("after a mistake: %d", got)
	}
}

// ECR that does not tell when an image was pushed decides nothing; one that forbids the question leaves the age since
// the image was first seen.
func TestAgeAtECRThatDoesNotAnswerIsNotKnown(t *testing.T) {
	s, _ := serveInside(t, "policy: [{match: \"*/team/*\", mode: enforce, age: 100h}]\n")
	image := s.addImage(t, "team/app", 1000)
	if err := s.ecr.SetImageState("team/app", image.Root.Digest, ecrtest.ImageState{Pushed: time.Now().Add(-200 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		fault *ecrtest.Fault // nil for none
		age   string         // another one is decided about anew
		want  int
	}{
		{&ecrtest.Fault{Status: http.StatusInternalServerError}, "100h", http.StatusServiceUnavailable},
		{&ecrtest.Fault{Throttle: true}, "101h", http.StatusServiceUnavailable},
		{&ecrtest.Fault{Code: "AccessDeniedException", Message: "not authorized to perform: ecr:DescribeImages"}, "102h", http.StatusForbidden},
		{nil, "103h", http.StatusOK},
	} {
		s.reload(t, "policy: [{match: \"*/team/*\", mode: enforce, age: "+step.age+"}]\n")
		heal := func() {}
		if step.fault != nil {
			step.fault.On, step.fault.Operation = ecrtest.API, "DescribeImages"
			heal = s.ecr.Inject(*step.fault)
		}
		if got := s.answers(t, "/v2/team/app/manifests/v1"); got != step.want {
			t.Errorf("%+v: %d, want %d\n%s", step.fault, got, step.want, s.log)
		}
		heal()
	}
}

// The folder of this release is opened by one without a policy, and again by this one: see design, section 6.
func TestDecisionsAreInAFileThatOtherReleasesIgnore(t *testing.T) {
	s, stop := serveInside(t, "policy: [{match: \"*/team/*\", mode: enforce, age: 1ms}]\n")
	image := s.addImage(t, "team/app", 1000)
	s.pull(t, "team/app", image)
	stop()
	raw, err := os.ReadFile(filepath.Join(s.cacheDir, policyFile))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Version   int
		Decisions []policy.Decision
	}
	if err := json.Unmarshal(raw, &file); err != nil || file.Version != 1 || len(file.Decisions) != 1 || file.Decisions[0].Digest != image.Root.Digest {
		t.Errorf("%v: %s", err, raw)
	}
}

// An index has no scan: the platform that is pulled is asked about, and an index as a whole is as bad as the platform of this
// machine.
func TestFindingsOfThePlatformDecide(t *testing.T) {
	s, _ := serveInside(t, "")
	image, err := s.ecr.AddImage("team/app", "v1", ecrtest.Image{
		Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 1000)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]string{}
	for i, platform := range []string{"amd64", "arm64"} {
		of[platform] = image.Manifests[i].Digest.String()
	}
	clean := &ecrtest.Scan{Status: "ACTIVE", Enhanced: true, Findings: []ecrtest.ScanFinding{{Severity: "HIGH", Fix: "NO"}}}
	bad := &ecrtest.Scan{Status: "ACTIVE", Enhanced: true, Findings: []ecrtest.ScanFinding{{Name: "CVE-2026-1234", Severity: "HIGH", Fix: "YES"}}}
	suppressed := &ecrtest.Scan{Status: "ACTIVE", Enhanced: true, Findings: []ecrtest.ScanFinding{{Severity: "CRITICAL", Fix: "YES", Status: "SUPPRESSED"}}}
	throttle := &ecrtest.Fault{On: ecrtest.API, Operation: "DescribeImageScanFindings", Throttle: true}
	for i, step := range []struct {
		name                    string
		scans                   [2]*ecrtest.Scan
		fault                   *ecrtest.Fault
		index, onAMD64, onARM64 int
	}{
		{"clean", [2]*ecrtest.Scan{clean, suppressed}, nil, http.StatusOK, http.StatusOK, http.StatusOK},
		{"one bad platform", [2]*ecrtest.Scan{clean, bad}, nil, http.StatusOK, http.StatusOK, http.StatusForbidden},
		{"not scanned", [2]*ecrtest.Scan{nil, clean}, nil, http.StatusOK, http.StatusForbidden, http.StatusOK},
		{"throttled", [2]*ecrtest.Scan{clean, clean}, throttle, http.StatusOK, http.StatusServiceUnavailable, http.StatusServiceUnavailable},
	} {
		t.Run(step.name, func(t *testing.T) {
			for at, m := range image.Manifests {
				if err := s.ecr.SetScan("team/app", m.Digest, step.scans[at]); err != nil {
					t.Fatal(err)
				}
			}
			if step.fault != nil {
				t.Cleanup(s.ecr.Inject(*step.fault))
			}
			// Each step has a rule of its own, which is decided about anew.
			s.reload(t, fmt.Sprintf("policy: [{match: \"*/team/*\", mode: enforce, age: %dns, findings: {worst: medium, only_fixable: true}}]\n", i+1))
			for reference, want := range map[string]int{"v1": step.index, of["amd64"]: step.onAMD64, of["arm64"]: step.onARM64} {
				if got := s.answers(t, "/v2/team/app/manifests/"+reference); got != want {
					t.Errorf("%s: %d, want %d", reference, got, want)
				}
			}
			v, err := verify(t.Context(), s.daemon.proxy, s.ecr.Host()+"/team/app:v1")
			if err != nil {
				t.Fatal(err)
			}
			own := map[string]int{"amd64": step.onAMD64, "arm64": step.onARM64}[runtime.GOARCH]
			if own != 0 && v.Served != (own == http.StatusOK) {
				t.Errorf("the whole image is verified as %+v", v.Decision)
			}
		})
	}
}
