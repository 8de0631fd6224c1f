package ecr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

const day = 24 * time.Hour

// policyNow is when the tests evaluate policies.
var policyNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return policyNow.Add(-d) }

// Lifecycle policies as ECR stores them.
const (
	olderThanFiveDays = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed",` +
		`"countUnit":"days","countNumber":5},"action":{"type":"expire"}}]}`
	untaggedPolicy = `{"rules":[{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},` +
		`"action":{"type":"expire"}}]}`
)

// setPolicy gives the repository of a fake ECR a lifecycle policy.
func setPolicy(t *testing.T, server *fake) {
	t.Helper()
	if err := server.SetLifecyclePolicy(repo, olderThanFiveDays); err != nil {
		t.Fatal(err)
	}
}

func setState(t *testing.T, server *fake, dgst digest.Digest, st ecrtest.ImageState) {
	t.Helper()
	if err := server.SetImageState(repo, dgst, st); err != nil {
		t.Fatal(err)
	}
}

func TestLifecycleIsThePolicyAndAllImages(t *testing.T) {
	server := startECR(t)
	setPolicy(t, server)
	added, err := server.AddImage(repo, "multi", ecrtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Artifact: true})
	if err != nil {
		t.Fatal(err)
	}
	plain := digest.FromString(manifestBody)
	setState(t, server, plain, ecrtest.ImageState{Status: "ARCHIVED", Pushed: ago(9 * day), Pulled: ago(8 * day),
		Archived: ago(day), Activated: ago(7 * day)})
	setState(t, server, added.Root.Digest, ecrtest.ImageState{Pushed: ago(6 * day)})
	for _, desc := range append(added.Manifests, added.Artifact) {
		setState(t, server, desc.Digest, ecrtest.ImageState{Pushed: ago(7 * day)})
	}
	got, err := server.Lifecycle(t.Context(), repo, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want := []lifecycle.Image{
		{Digest: plain, Tags: []string{"v1"}, Status: "ARCHIVED", Pushed: ago(9 * day), Pulled: ago(8 * day),
			Archived: ago(day), Activated: ago(7 * day)},
		{Digest: added.Root.Digest, Tags: []string{"multi"}, Status: "ACTIVE", Pushed: ago(6 * day), Index: true},
		{Digest: added.Manifests[0].Digest, Status: "ACTIVE", Pushed: ago(7 * day)},
		{Digest: added.Manifests[1].Digest, Status: "ACTIVE", Pushed: ago(7 * day)},
		{Digest: added.Artifact.Digest, Status: "ACTIVE", Pushed: ago(7 * day), Subject: added.Root.Digest},
	}
	byDigest := func(a, b lifecycle.Image) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
	slices.SortFunc(want, byDigest)
	images := got.Images
	slices.SortFunc(images, byDigest)
	if diff := gocmp.Diff(want, images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	if expired := got.Policy.Expired(got.Images, policyNow); len(expired) != 4 {
		t.Errorf("expired %v, want all but the archived one", expired)
	}
}

// buffered is a client that holds the bodies of requests in memory. The SDK closes a
// body as soon as there is an answer. On loopback that may be before net/http has
// read the body, which then closes the connection under a long answer.
type buffered struct{ aws.HTTPClient }

func (b buffered) Do(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	return b.HTTPClient.Do(req)
}

func TestLifecycleReadsEveryPage(t *testing.T) {
	server := startECR(t)
	setPolicy(t, server)
	for i := range 2 * imagePage {
		if _, err := server.AddManifest(repo, "", manifestType, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	session := server.api.session
	session.client = buffered{session.client}
	got, err := server.Lifecycle(t.Context(), repo, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	unique := make(map[digest.Digest]bool)
	for _, img := range got.Images {
		unique[img.Digest] = true
	}
	if want := 2*imagePage + 1; len(got.Images) != want || len(unique) != want {
		t.Errorf("%d images, %d of them different, want %d", len(got.Images), len(unique), want)
	}
	if n := server.Stats().Requests[ecrtest.API]; n != 4 {
		t.Errorf("%d calls, want one for the policy and three for the images", n)
	}
}

func TestMissingLifecycleDoesNotExist(t *testing.T) {
	server := startECR(t)
	if _, err := server.AddManifest("team/with-policy", "v1", manifestType, []byte(manifestBody)); err != nil {
		t.Fatal(err)
	}
	if err := server.SetLifecyclePolicy("team/with-policy", untaggedPolicy); err != nil {
		t.Fatal(err)
	}
	other := configOf(t, "210987654321.dkr.ecr.us-east-1.amazonaws.com")
	other.APIEndpoint = server.Endpoint
	for label, test := range map[string]struct {
		registry *Registry
		repo     string
	}{
		"no policy":       {server.Registry, repo},
		"no repository":   {server.Registry, "team/none"},
		"another account": {newTestClient(t, nil).Registry(other, pace.NewLimiter("other", 0)), "team/with-policy"},
	} {
		t.Run(label, func(t *testing.T) {
			server.ResetStats()
			if _, err := test.registry.Lifecycle(t.Context(), test.repo, time.Time{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v, want %v", err, fs.ErrNotExist)
			}
			if n := server.Stats().Requests[ecrtest.API]; n != 1 {
				t.Errorf("%d calls, want 1", n)
			}
		})
	}
}

func TestHostWithoutAnAccountMeansThatOfTheCredentials(t *testing.T) {
	server := startECR(t)
	setPolicy(t, server)
	cfg := Config{Name: "mirror.test", Host: name.ECR{Region: "us-east-1"}, APIEndpoint: server.Endpoint, Timeout: 20 * time.Second}
	r := newTestClient(t, nil).Registry(cfg, pace.NewLimiter("mirror.test", 0))
	if got, err := r.Lifecycle(t.Context(), repo, time.Time{}); err != nil || len(got.Images) != 1 {
		t.Errorf("got %v and %v", got.Images, err)
	}
}

func TestLifecycleFails(t *testing.T) {
	fault := func(kind string) ecrtest.Fault {
		return ecrtest.Fault{On: ecrtest.API, Status: http.StatusBadRequest,
			Body: `{"__type":"` + kind + `","message":"User: arn:aws:iam::1:user/x is not authorized"}`}
	}
	for name, test := range map[string]struct {
		policy string
		fault  ecrtest.Fault
		skip   int
		is     error
		text   string
	}{
		"no permission for the policy": {"", fault("AccessDeniedException"), 0, fs.ErrPermission, "get the lifecycle policy of team/app"},
		"no permission for the images": {"", fault("AccessDeniedException"), 1, fs.ErrPermission, "describe the images of team/app"},
		"repository gone meanwhile":    {"", fault("RepositoryNotFoundException"), 1, fs.ErrNotExist, "describe the images of team/app"},
		"credentials that have ended":  {"", fault("ExpiredTokenException"), 0, nil, "ExpiredTokenException"},
		"throttled":                    {"", fault("ThrottlingException"), 0, nil, "ThrottlingException"},
		"broken policy":                {`{"rules":7}`, ecrtest.Fault{}, 0, nil, "team/app: lifecycle policy: rules: not a list"},
	} {
		t.Run(name, func(t *testing.T) {
			server := startECR(t)
			setPolicy(t, server)
			if test.policy != "" {
				if err := server.SetLifecyclePolicy(repo, test.policy); err != nil {
					t.Fatal(err)
				}
			}
			test.fault.Skip = test.skip
			server.Inject(test.fault)
			got, err := server.Lifecycle(t.Context(), repo, time.Time{})
			if err == nil || !strings.Contains(err.Error(), test.text) || got.Images != nil {
				t.Fatalf("got %d images and %v, want %q", len(got.Images), err, test.text)
			}
			for _, is := range []error{fs.ErrNotExist, fs.ErrPermission} {
				if errors.Is(err, is) != (is == test.is) { //nolint:errorlint // the sentinels themselves are compared
					t.Errorf("%v is %v: %t", err, is, errors.Is(err, is))
				}
			}
		})
	}
}

// The file of the pod's token does not exist; the policy does.
func TestMissingCredentialsDoNotReadAsAMissingPolicy(t *testing.T) {
	server := startECR(t)
	upstreamtest.SetAWS(t, "")
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/node")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", t.TempDir()+"/token")
	_, err := server.Lifecycle(t.Context(), repo, time.Time{})
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

// startAPI runs an ECR API whose answers are those of h, and returns the registries
// of two accounts that use it.
func startAPI(t *testing.T, h http.HandlerFunc) (mine, other *Registry) {
	t.Helper()
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	endpoint, c := serve(t, h).URL, newTestClient(t, nil)
	registry := func(host string) *Registry {
		cfg := configOf(t, host)
		cfg.APIEndpoint = endpoint
		return c.Registry(cfg, pace.NewLimiter(host, 0))
	}
	return registry("123456789012.dkr.ecr.us-east-1.amazonaws.com"), registry("210987654321.dkr.ecr.us-east-1.amazonaws.com")
}

// answerAPI answers calls with a policy and with pages of images.
func answerAPI(w http.ResponseWriter, r *http.Request, images string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetLifecyclePolicy") {
		_, _ = fmt.Fprintf(w, `{"lifecyclePolicyText":%q}`, untaggedPolicy)
		return
	}
	_, _ = fmt.Fprint(w, images)
}

func TestEndlessPagesEnd(t *testing.T) {
	var calls atomic.Int64
	r, _ := startAPI(t, func(w http.ResponseWriter, r *http.Request) {
		answerAPI(w, r, fmt.Sprintf(`{"imageDetails":[],"nextToken":"%d"}`, calls.Add(1)))
	})
	if _, err := r.Lifecycle(t.Context(), repo, time.Time{}); err == nil || !strings.Contains(err.Error(), "more than 100 pages") {
		t.Errorf("got %v", err)
	}
	if n := calls.Load(); n != 1+maxImagePages {
		t.Errorf("%d calls, want one for the policy and %d for the images", n, maxImagePages)
	}
}

func TestImageWithoutADigestIsAnError(t *testing.T) {
	r, _ := startAPI(t, func(w http.ResponseWriter, r *http.Request) {
		answerAPI(w, r, `{"imageDetails":[{"imageDigest":"sha256:0"}]}`)
	})
	if _, err := r.Lifecycle(t.Context(), repo, time.Time{}); err == nil || !strings.Contains(err.Error(), `digest "sha256:0"`) {
		t.Errorf("got %v", err)
	}
}

func TestSilentAPIEndsALifecycleInTime(t *testing.T) {
	server := startECR(t)
	cfg := configOf(t, server.Host())
	cfg.APIEndpoint, cfg.Timeout = server.Endpoint, 50*time.Millisecond
	slow := newTestClient(t, nil).Registry(cfg, pace.NewLimiter(cfg.Name, 0))
	defer server.Inject(ecrtest.Fault{On: ecrtest.API, Hang: true})()
	if _, err := slow.Lifecycle(t.Context(), repo, time.Time{}); !errors.Is(err, reply.ErrTimeout) {
		t.Errorf("got %v, want %v", err, reply.ErrTimeout)
	}
}

func TestLifecyclesOfARegionAreReadOneAtATime(t *testing.T) {
	var running, most atomic.Int64
	inner := ecrtest.New(ecrtest.Options{Latency: 2 * time.Millisecond})
	if _, err := inner.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
		t.Fatal(err)
	}
	if err := inner.SetLifecyclePolicy(repo, untaggedPolicy); err != nil {
		t.Fatal(err)
	}
	mine, other := startAPI(t, func(w http.ResponseWriter, r *http.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		inner.Registry().ServeHTTP(w, r)
	})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := mine.Lifecycle(t.Context(), repo, time.Time{}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := other.Lifecycle(t.Context(), repo, time.Time{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("in an account that is not the fake's: %v", err)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n != 1 {
		t.Errorf("%d calls at a time", n)
	}
}

func TestWaitingForALifecycleEndsWithItsContext(t *testing.T) {
	server := startECR(t)
	setPolicy(t, server)
	came := make(chan struct{})
	release := server.Inject(ecrtest.Fault{On: ecrtest.API, Times: 1, Hang: true, Notify: func() { close(came) }})
	first := make(chan error, 1)
	go func() {
		_, err := server.Lifecycle(t.Context(), repo, time.Time{})
		first <- err
	}()
	<-came
	gone := errors.New("gone")
	ctx, leave := context.WithCancelCause(t.Context())
	leave(gone)
	if _, err := server.Lifecycle(ctx, repo, time.Time{}); !errors.Is(err, gone) {
		t.Errorf("got %v, want %v", err, gone)
	}
	release()
	if err := <-first; err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestImagesAreReadAgainWhenECRHasEvaluatedThePolicy(t *testing.T) {
	server := startECR(t)
	setPolicy(t, server)
	read := func(seen time.Time) Lifecycle {
		t.Helper()
		server.ResetStats()
		got, err := server.Lifecycle(t.Context(), repo, seen)
		if err != nil {
			t.Fatal(err)
		}
		if n := server.Stats().Requests[ecrtest.API]; n != got.Calls() {
			t.Errorf("%d calls, told as %d", n, got.Calls())
		}
		return got
	}
	if got := read(time.Time{}); !got.Evaluated.IsZero() || len(got.Images) != 1 {
		t.Errorf("before ECR has evaluated the policy: %+v", got)
	}
	if _, err := server.RunLifecycle(repo); err != nil {
		t.Fatal(err)
	}
	first := read(time.Time{})
	if first.Evaluated.IsZero() || len(first.Images) != 1 {
		t.Fatalf("when ECR has evaluated it: %+v", first)
	}
	if again := read(first.Evaluated); again.Images != nil || again.Calls() != 1 {
		t.Errorf("the images were read again: %+v", again)
	}
	if later := read(first.Evaluated.Add(-time.Hour)); len(later.Images) != 1 {
		t.Errorf("after an evaluation the images were not read: %+v", later)
	}
}
