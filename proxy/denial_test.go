package proxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// newDeniedRig returns a rig with credentials of another account, which the repository's
// policy allows only these actions.
func newDeniedRig(t *testing.T, allowed ...string) (*rig, *ecrtest.Clock, *logs) {
	t.Helper()
	clock, log := ecrtest.NewClock(), new(logs)
	r := newRig(t, settings{now: clock.Now, log: log, cache: cache.Options{Tags: cache.Freshness{TTL: time.Minute, Negative: 10 * time.Second}}})
	key := r.ecr.AWS().AddUser("arn:aws:iam::444455556666:user/ci", ecrtest.Policy{ecrtest.Allow("*")})
	for name, value := range key.Environment() {
		t.Setenv(name, value)
	}
	r.addImage("v1", ecrtest.Random(1, 1000))
	if len(allowed) > 0 {
		if err := r.ecr.SetRepositoryPolicy(app, ecrtest.Policy{ecrtest.Allow(allowed...).To("*")}); err != nil {
			t.Fatal(err)
		}
	}
	return r, clock, log
}

func TestDenialAcrossAccountsSaysWhichStatementIsMissing(t *testing.T) {
	r, _, log := newDeniedRig(t)
	a := r.get(manifestPath(app, "v1") + "?ns=" + r.ecr.Host())
	wantError(t, a, http.StatusForbidden, "DENIED")
	var body struct{ Errors []struct{ Message string } }
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.Errors) != 1 {
		t.Fatalf("%s: %v", a.body, err)
	}
	r.server.Close() // waits for the log line
	message := body.Errors[0].Message
	const statement = `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::444455556666:user/ci"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}`
	for _, want := range []string{
		"ecr:BatchGetImage", "arn:aws:iam::444455556666:user/ci",
		"add to the repository policy of team/app in account 123456789012: " + statement,
	} {
		if !strings.Contains(message, want) {
			t.Errorf("the message is %q, without %q", message, want)
		}
	}
	if strings.ContainsAny(message, "\r\n") || len(message) > 1000 {
		t.Errorf("the message is not one short line: %q", message)
	}

	lines := log.requests(t)
	want := map[string]any{
		"action": "ecr:BatchGetImage", "principal": "arn:aws:iam::444455556666:user/ci",
		"resource": "arn:aws:ecr:us-east-1:123456789012:repository/team/app",
		"policy":   "resource-based policy", "explicit": false, "resource_statement": statement,
	}
	if diff := cmp.Diff(any(want), lines[len(lines)-1]["denied"]); diff != "" {
		t.Errorf("the log line (-want +got):\n%s", diff)
	}
}

// A pod that is restarted again and again repeats its requests.
func TestDenialIsRememberedForAWhile(t *testing.T) {
	r, clock, _ := newDeniedRig(t)
	ns := "?ns=" + r.ecr.Host()
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	for name, ask := range map[string]func(){
		"a tag":           func() { wantError(t, r.get(manifestPath(app, "v1")+ns), http.StatusForbidden, "DENIED") },
		"a HEAD of a tag": func() { wantError(t, r.head(manifestPath(app, "v1")+ns), http.StatusForbidden, "DENIED") },
		"a manifest by digest": func() {
			wantError(t, r.get(manifestPath(app, image.Root.Digest.String())+ns), http.StatusForbidden, "DENIED")
		},
		"a blob": func() {
			wantError(t, r.get(blobPath(app, image.Blobs[0].Digest)+ns), http.StatusNotFound, "BLOB_UNKNOWN")
		},
	} {
		clock.Advance(10 * time.Second)
		r.ecr.ResetStats()
		for range 20 {
			ask()
		}
		if n := r.ecr.Stats().Requests[ecrtest.Manifest] + r.ecr.Stats().Requests[ecrtest.Blob]; n < 1 || n > 2 { // a HEAD, and a GET to read why
			t.Errorf("%s: the upstream was asked %d times in ten seconds, want once", name, n)
		}
		clock.Advance(10 * time.Second)
		ask()
		if n := r.ecr.Stats().Requests[ecrtest.Manifest] + r.ecr.Stats().Requests[ecrtest.Blob]; n < 2 {
			t.Errorf("%s: the upstream was not asked again", name)
		}
	}
}

// The policy allows reading manifests, but not layers.
func TestDenialOfALayerIsRememberedForAWhile(t *testing.T) {
	r, clock, _ := newDeniedRig(t, "ecr:BatchGetImage")
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	layer := blobPath(app, image.Blobs[0].Digest)
	for range 20 {
		a := r.get(layer)
		wantError(t, a, http.StatusNotFound, "BLOB_UNKNOWN")
		if !strings.Contains(string(a.body), "ecr:GetDownloadUrlForLayer") {
			t.Fatalf("the answer is %s, without the action", a.body)
		}
	}
	if n := r.ecr.Stats().Requests[ecrtest.Blob]; n != 1 {
		t.Errorf("the upstream was asked %d times, want once", n)
	}
	all := ecrtest.Policy{ecrtest.Allow("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer").To("*")}
	if err := r.ecr.SetRepositoryPolicy(app, all); err != nil {
		t.Fatal(err)
	}
	clock.Advance(10 * time.Second)
	content := r.cache(layer)
	// Cached content is served, whatever the upstream would say.
	if err := r.ecr.SetRepositoryPolicy(app, nil); err != nil {
		t.Fatal(err)
	}
	wantBody(t, r.get(layer), content)
}
