package upkeep_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// archiveUnpulled archives images that were not pulled for thirty days.
const archiveUnpulled = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled",` +
	`"countUnit":"days","countNumber":30},"action":{"type":"transition","targetStorageClass":"archive"}}]}`

// kept is a Larder in front of a fake ECR whose repository archives images that are
// not pulled, with an image of two platforms, pushed now.
type kept struct {
	*rig
	clock *ecrtest.Clock
	alive *upkeep.KeepAlive
	image *ecrtest.Added
}

func startKept(t *testing.T, ecrKeys string) *kept {
	t.Helper()
	clock := ecrtest.NewClock()
	k := &kept{rig: newRigAt(t, clock.Now, ecrKeys, ""), clock: clock}
	if err := k.ecr.SetLifecyclePolicy("team/app", archiveUnpulled); err != nil {
		t.Fatal(err)
	}
	var err error
	if k.image, err = k.ecr.AddImage("team/app", "1.0", ecrtest.Image{
		Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 1000)}}, Platforms: []string{"linux/amd64", "linux/arm64"},
	}); err != nil {
		t.Fatal(err)
	}
	k.alive = k.newAlive(t, noop.NewMeterProvider())
	return k
}

// newAlive returns a KeepAlive as a restart of the daemon makes it.
func (k *kept) newAlive(t *testing.T, meter metric.MeterProvider) *upkeep.KeepAlive {
	t.Helper()
	alive, err := upkeep.NewKeepAlive(k.cfg, k.client, k.store, k.logger, meter)
	if err != nil {
		t.Fatal(err)
	}
	alive.SetClock(k.clock.Now)
	return alive
}

// use pulls the image's first platform, and returns whether all came from the
// cache.
func (k *kept) use(t *testing.T) bool {
	t.Helper()
	hit := k.get(t, "manifests/1.0") == "HIT"
	hit = k.get(t, "manifests/"+k.image.Manifests[0].Digest.String()) == "HIT" && hit
	return k.get(t, "blobs/"+k.image.Blobs[0].Digest.String()) == "HIT" && hit
}

// fill uses the image until all of it comes from the cache.
func (k *kept) fill(t *testing.T) {
	t.Helper()
	await(t, "the image comes from the cache", func() bool { return k.use(t) })
}

// touches runs one round, and returns how many manifests were fetched.
func (k *kept) touches(t *testing.T) int {
	t.Helper()
	k.ecr.ResetStats()
	if err := k.alive.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	stats := k.ecr.Stats()
	if n := stats.Heads[ecrtest.Manifest] + stats.Requests[ecrtest.Blob] + stats.Requests[ecrtest.Storage]; n != 0 {
		t.Errorf("%d requests for something other than manifests", n)
	}
	return stats.Requests[ecrtest.Manifest]
}

// archived runs the repository's policy, and returns what it archived.
func (k *kept) archived(t *testing.T) []digest.Digest {
	t.Helper()
	done, err := k.ecr.RunLifecycle("team/app")
	if err != nil {
		t.Fatal(err)
	}
	return done.Archived
}

func TestKeepAliveKeepsImagesServedFromTheCacheAtECR(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	for day := range 60 {
		k.clock.Advance(24 * time.Hour)
		if !k.use(t) {
			t.Fatalf("day %d: not all came from the cache", day)
		}
		if n := k.touches(t); n != 2 {
			t.Fatalf("day %d: %d manifests were fetched, want the index and one of its manifests", day, n)
		}
		for _, d := range k.archived(t) {
			if d == k.image.Root.Digest || d == k.image.Manifests[0].Digest {
				t.Fatalf("day %d: %s was archived, though it is in use", day, d)
			}
		}
	}
}

func TestImageServedFromTheCacheIsArchivedWithoutKeepAlive(t *testing.T) {
	k := startKept(t, ", keep_alive: 0")
	k.fill(t)
	for day := 1; ; day++ {
		k.clock.Advance(24 * time.Hour)
		if n := k.touches(t); n != 0 {
			t.Fatalf("day %d: %d manifests were fetched", day, n)
		}
		if len(k.archived(t)) > 0 {
			if day < 30 {
				t.Errorf("archived on day %d", day)
			}
			return
		}
		if day > 31 {
			t.Fatal("it is still not archived")
		}
		k.use(t)
	}
}

func TestImageInUseIsTouchedOnceADay(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	k.clock.Advance(48 * time.Hour)
	if n := k.touches(t); n != 0 {
		t.Errorf("%d manifests were fetched, though no client asked for them again", n)
	}
	k.use(t)
	if n := k.touches(t); n != 2 {
		t.Errorf("%d manifests were fetched, want 2", n)
	}
	for range 23 {
		k.clock.Advance(time.Hour)
		k.use(t)
		k.alive = k.newAlive(t, noop.NewMeterProvider()) // the store has the time of the touch
		if n := k.touches(t); n != 0 {
			t.Fatalf("%d manifests were fetched again on the same day", n)
		}
	}
	k.clock.Advance(time.Hour)
	if n := k.touches(t); n != 2 {
		t.Errorf("a day later %d manifests were fetched, want 2", n)
	}
}

func TestImagesAreNotTouchedWhileTheirUpstreamIsDown(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	k.clock.Advance(24 * time.Hour)
	k.use(t)
	up := k.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusBadGateway})
	if n := k.touches(t); n < 1 || n > 3 {
		t.Errorf("%d requests, want those for one manifest", n)
	}
	up()
	repo := cache.Repository{Upstream: k.ecr.Host(), Name: "team/app"}
	holdings, err := k.store.Holdings()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range holdings[repo] {
		if h.Touched.After(k.clock.Now().Add(-time.Hour)) {
			t.Errorf("%s counts as touched", h.Digest)
		}
	}
	if n := k.touches(t); n != 2 {
		t.Errorf("when it is back, %d manifests were fetched, want 2", n)
	}
}

func TestImageThatIsGoneUpstreamIsTouchedOnceADay(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	k.clock.Advance(24 * time.Hour)
	k.use(t)
	for _, d := range []digest.Digest{k.image.Root.Digest, k.image.Manifests[0].Digest} {
		if err := k.ecr.RemoveManifest("team/app", d); err != nil {
			t.Fatal(err)
		}
	}
	if n := k.touches(t); n != 2 {
		t.Errorf("%d manifests were asked for, want 2", n)
	}
	if n := k.touches(t); n != 0 {
		t.Errorf("%d manifests were asked for again", n)
	}
}

func TestKeepAliveStopsWithTheDaemon(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	k.clock.Advance(24 * time.Hour)
	k.use(t)
	ctx, cancel := context.WithCancel(t.Context())
	k.ecr.ResetStats()
	k.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Hang: true, Notify: cancel})
	if err := k.alive.Round(ctx); err == nil {
		t.Error("the round went on")
	}
	if n := k.ecr.Stats().Requests[ecrtest.Manifest]; n != 1 {
		t.Errorf("%d manifests were asked for, want none after the end", n)
	}
}

// A pattern may match any number of hosts, and metrics keep what they were once told.
func TestTouchesAreCountedByConfiguredUpstream(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	const pattern = "*.dkr.ecr.*.amazonaws.com"
	k.cfg.Upstreams[0].Host = pattern
	reader := sdkmetric.NewManualReader()
	k.alive = k.newAlive(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	k.clock.Advance(25 * time.Hour)
	if !k.use(t) {
		t.Fatal("not all came from the cache")
	}
	n := k.touches(t)
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	points := got.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64]).DataPoints
	labels := attribute.NewSet(attribute.String("upstream", pattern), attribute.String("result", "ok"))
	if len(points) != 1 || points[0].Attributes != labels || points[0].Value != int64(n) || n == 0 {
		t.Errorf("%d touches are counted as %+v, want the upstream %s", n, points, pattern)
	}
}

func TestImageThatAnotherNodeHasPulledTodayIsNotTouched(t *testing.T) {
	k := startKept(t, "")
	k.lifecycle.SetClock(k.clock.Now)
	k.fill(t)
	k.clock.Advance(25 * time.Hour)
	k.use(t)
	for _, d := range []digest.Digest{k.image.Root.Digest, k.image.Manifests[0].Digest} {
		if err := k.ecr.SetImageState("team/app", d, ecrtest.ImageState{Pushed: k.clock.Now().Add(-48 * time.Hour), Pulled: k.clock.Now().Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.lifecycle.ReadPolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := k.touches(t); n != 0 {
		t.Errorf("%d manifests were fetched, though ECR knows of a pull an hour ago", n)
	}
	k.clock.Advance(24 * time.Hour)
	k.use(t)
	if n := k.touches(t); n != 2 {
		t.Errorf("a day later %d manifests were fetched, want 2", n)
	}
}

// larderUser is whose credentials the rig has.
const larderUser = "arn:aws:iam::123456789012:user/larder"

func TestImagesAreNotTouchedWhereECRDoesNotRecordThesePulls(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	k.ecr.SetPullTimeExclusions(larderUser)
	for range 3 {
		k.clock.Advance(25 * time.Hour)
		k.use(t)
		if n := k.touches(t); n != 0 {
			t.Errorf("%d manifests were fetched, though ECR records no pull", n)
		}
	}
	if n := strings.Count(k.log.String(), "does not record pulls"); n != 1 || !strings.Contains(k.log.String(), larderUser) {
		t.Errorf("it was said %d times, want once and by whom:\n%s", n, k.log.String())
	}
	if st := k.client.Status(); len(st) != 1 || st[0].PullsNotRecorded != larderUser {
		t.Errorf("the status is %+v", st)
	}
	k.ecr.SetPullTimeExclusions()
	k.clock.Advance(25 * time.Hour)
	if n := k.touches(t); n != 2 {
		t.Errorf("when the exclusion had ended, %d manifests were fetched, want 2", n)
	}
	if !strings.Contains(k.log.String(), "records pulls by these credentials again") {
		t.Errorf("the end was not said:\n%s", k.log.String())
	}
}

func TestImagesAreTouchedWhereExclusionsCannotBeRead(t *testing.T) {
	for code, said := range map[string]int{"AccessDeniedException": 1, "ServerException": 0} {
		t.Run(code, func(t *testing.T) {
			k := startKept(t, "")
			k.fill(t)
			k.ecr.SetPullTimeExclusions(larderUser)
			k.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "ListPullTimeUpdateExclusions", Status: http.StatusBadRequest, Code: code})
			for day := range 3 {
				k.clock.Advance(25 * time.Hour)
				k.use(t)
				if n := k.touches(t); n != 2 {
					t.Errorf("day %d: %d manifests were fetched, want 2", day, n)
				}
			}
			if n := strings.Count(k.log.String(), "ecr:ListPullTimeUpdateExclusions"); n != said {
				t.Errorf("the denial was said %d times, want %d:\n%s", n, said, k.log.String())
			}
		})
	}
}

func TestExclusionsAreReadOnceADay(t *testing.T) {
	k := startKept(t, "")
	k.fill(t)
	k.clock.Advance(12 * time.Hour)
	other := k.add(t, "2.0", time.Hour)
	k.pull(t, "2.0", other)
	for range 6 { // another image is due each time
		k.clock.Advance(12 * time.Hour)
		k.use(t)
		k.get(t, "manifests/"+other.Root.Digest.String())
		if k.touches(t) == 0 {
			t.Fatal("no image was due")
		}
	}
	call := ecrtest.Call{Principal: larderUser, Region: "us-east-1", Action: "ecr:ListPullTimeUpdateExclusions"}
	if n := k.ecr.AWS().Calls()[call]; n != 3 {
		t.Errorf("the list was read %d times in three days, want 3", n)
	}
}
