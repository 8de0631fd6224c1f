package upstream

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// replicated is a registry in one region with a replica in another. Both have the
// content of questions.
type replicated struct {
	*Registry
	primary, replica *ecrtest.Running
	blob             digest.Digest
	client           *Client
	log              *upstreamtest.Log
}

func startReplicated(t *testing.T) *replicated {
	t.Helper()
	primary := startECR(t, ecrtest.Options{}).Running
	replica, err := ecrtest.Start(ecrtest.Options{Region: "us-west-2", AWS: primary.AWS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	})
	r := replicate(t, network{transports: guard.NewTransports(guard.Options{})}, primary, replica)
	r.Registry = registryOf(t, r.client, primary.Host())
	return r
}

// startReplicatedInBubble is startReplicated in a bubble, where the environment
// must be set already.
func startReplicatedInBubble(t *testing.T) *replicated {
	t.Helper()
	primary := ecrtest.New(ecrtest.Options{})
	replica := ecrtest.New(ecrtest.Options{Region: "us-west-2", AWS: primary.AWS()})
	mux := http.NewServeMux()
	mux.Handle("/", primary.Registry()) // which answers for both
	for storage, server := range map[string]*ecrtest.Server{"storage.test": primary, "storage-of-the-replica.test": replica} {
		server.SetStorageURL("http://" + storage)
		mux.Handle(storage+"/", server.Storage())
	}
	r := replicate(t, serveInBubble(t, mux), &ecrtest.Running{Server: primary, Endpoint: "http://" + primary.Host()},
		&ecrtest.Running{Server: replica, Endpoint: "http://" + replica.Host()})
	r.Registry = registryOf(t, r.client, primary.Host())
	return r
}

// replicate gives both the content of questions, and makes a client for them.
func replicate(t *testing.T, via network, primary, replica *ecrtest.Running) *replicated {
	t.Helper()
	r := &replicated{primary: primary, replica: replica}
	for _, server := range []*ecrtest.Running{primary, replica} {
		if _, err := server.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
			t.Fatal(err)
		}
		desc, err := server.AddBlob(repo, ecrtest.Random(1, 1000))
		if err != nil {
			t.Fatal(err)
		}
		r.blob = desc.Digest
	}
	cfg := ecrConfig(primary)
	cfg.ECR.Replicas = []string{replica.Host()}
	r.client, r.log = newTestClientOn(t, via, cfg, ecrConfig(replica))
	return r
}

// byDigest are the questions that any copy can answer.
var byDigest = map[string]func(context.Context, *Registry, digest.Digest) error{
	"manifest": func(ctx context.Context, r *Registry, _ digest.Digest) error {
		_, body, err := r.Manifest(ctx, repo, digest.FromString(manifestBody).String(), false)
		if err == nil && string(body) != manifestBody {
			err = errors.New("another manifest came")
		}
		return err
	},
	"blob":     questions["blob"],
	"has blob": questions["has blob"],
}

// outagesOfARegion make a region fail.
var outagesOfARegion = map[string]func(*ecrtest.Running){
	"gone": func(s *ecrtest.Running) { s.Stop() },
	"broken": func(s *ecrtest.Running) {
		s.Inject(ecrtest.Fault{On: ecrtest.Any, Status: http.StatusInternalServerError})
	},
	"unavailable": func(s *ecrtest.Running) {
		s.Inject(ecrtest.Fault{On: ecrtest.Any, Status: http.StatusServiceUnavailable})
	},
	"throttled": func(s *ecrtest.Running) {
		s.Inject(ecrtest.Fault{
			On: ecrtest.Manifest | ecrtest.Blob, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}},
		})
	},
}

// failuresToOpen is how many failures in a row open the breaker of a registry.
const failuresToOpen = 3

func TestReplicaStandsInForARegionThatFails(t *testing.T) {
	for outage, strike := range outagesOfARegion {
		for question, ask := range byDigest {
			t.Run(outage+"/"+question, func(t *testing.T) {
				r := startReplicated(t)
				strike(r.primary)
				for range failuresToOpen + 1 {
					if err := ask(t.Context(), r.Registry, r.blob); err != nil {
						t.Fatal(err)
					}
				}
				r.log.WantLines(t, "the registry fails", 1)
				if n := r.replica.Stats().Tokens; n != 1 {
					t.Errorf("%d tokens of the replica's own region, want 1", n)
				}
				wantAllSlots(t, r.Registry)
			})
		}
	}
}

func TestSilentRegionLeavesTimeForItsReplica(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	for question, ask := range byDigest {
		t.Run(question, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startReplicatedInBubble(t)
				defer r.primary.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob, Hang: true})()
				for _, want := range []time.Duration{defaultTimeout / 2, 0} { // it is not waited for again
					begun := time.Now()
					if err := ask(t.Context(), r.Registry, r.blob); err != nil {
						t.Error(err)
					}
					if took := time.Since(begun); took != want {
						t.Errorf("took %v, want %v", took, want)
					}
				}
			})
		})
	}
}

func TestReplicaIsNotAskedWhileThePrimaryAnswers(t *testing.T) {
	for _, status := range []int{0, http.StatusNotFound, http.StatusForbidden, http.StatusBadRequest} {
		r := startReplicated(t)
		r.primary.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob, Status: status})
		for question, ask := range byDigest {
			err := ask(t.Context(), r.Registry, r.blob)
			var refusal *reply.Error
			if status != 0 && (!errors.As(err, &refusal) || refusal.Status != status) {
				t.Errorf("%s: %v, want status %d", question, err, status)
			} else if status == 0 && err != nil {
				t.Errorf("%s: %v", question, err)
			}
		}
		if got := r.replica.Stats().Requests; len(got) != 0 {
			t.Errorf("status %d: the replica was asked: %v", status, got)
		}
	}
}

func TestReplicaIsNeverAskedForATag(t *testing.T) {
	r := startReplicated(t)
	r.primary.Stop()
	for _, question := range []string{"manifest", "head manifest", "tags"} {
		if err := questions[question](t.Context(), r.Registry, r.blob); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", question, err)
		}
	}
	if got := r.replica.Stats().Requests; len(got) != 0 {
		t.Errorf("the replica was asked: %v", got)
	}
}

func TestRefusalByAReplicaDoesNotCount(t *testing.T) {
	for status, kind := range map[int]error{http.StatusNotFound: fs.ErrNotExist, http.StatusForbidden: fs.ErrPermission} {
		r := startReplicated(t)
		r.replica.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob, Status: status})
		r.primary.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob, Status: http.StatusBadGateway})
		for question, ask := range byDigest {
			for range failuresToOpen { // so that the primary is asked last at the end
				err := ask(t.Context(), r.Registry, r.blob)
				if err == nil || errors.Is(err, kind) {
					t.Errorf("%s: %v", question, err)
				} else if text := err.Error(); !strings.Contains(text, "502") || !strings.Contains(text, r.replica.Host()) {
					t.Errorf("%s: %q does not tell of both", question, text)
				}
			}
		}
		wantAllSlots(t, r.Registry)
	}
}

func TestPrimaryIsLeftAloneForAWhileAndThenAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		fails, asked := true, make(map[string]int)
		via := serveInBubble(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked[req.Host]++
			if fails && req.Host == "primary.test" {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			content(w, req)
		}))
		c, log := newTestClientOn(t, via,
			Config{Host: "primary.test", Endpoint: "http://primary.test", ECR: ECRConfig{Replicas: []string{"replica.test"}}},
			Config{Host: "replica.test", Endpoint: "http://replica.test"})
		r := registryOf(t, c, "primary.test")
		ask := func() {
			t.Helper()
			for range 10 {
				if err := questions["has blob"](t.Context(), r, someBlob); err != nil {
					t.Fatal(err)
				}
			}
		}
		ask()
		if n := asked["primary.test"]; n != failuresToOpen {
			t.Errorf("the primary was asked %d times, want %d", n, failuresToOpen)
		}
		mu.Lock()
		fails = false
		mu.Unlock()
		before := asked["replica.test"]
		pass(5 * time.Second) // the first pause
		ask()
		if n := asked["replica.test"]; n != before {
			t.Errorf("the replica was asked %d times after the primary was back", n-before)
		}
		log.WantLines(t, "the registry answers again", 1)
	})
}

func TestAnswerToATagShowsThatThePrimaryIsBack(t *testing.T) {
	r := startReplicated(t)
	heal := r.primary.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusInternalServerError})
	for range failuresToOpen {
		_ = questions["manifest"](t.Context(), r.Registry, "")
	}
	if ok, _ := r.members.primary().breaker.Enter(); ok {
		t.Error("failures with tags do not count")
	}
	heal()
	if err := questions["manifest"](t.Context(), r.Registry, ""); err != nil {
		t.Fatal(err)
	}
	if ok, try := r.members.primary().breaker.Enter(); !ok || try {
		t.Error("a success with a tag does not count")
	}
}

func TestThrottledSpareBodyDoesNotOpenTheBreaker(t *testing.T) {
	r := startReplicated(t)
	r.primary.Inject(ecrtest.Fault{On: ecrtest.Blob, Status: http.StatusTooManyRequests})
	for range failuresToOpen + 1 {
		if _, err := r.OpenBlob(t.Context(), repo, r.blob, Range{Len: 1, Spare: true}); !reply.IsThrottled(err) {
			t.Errorf("got %v", err)
		}
	}
	if ok, _ := r.members.primary().breaker.Enter(); !ok {
		t.Error("the primary counts as failing")
	}
	wantAllSlots(t, r.Registry)
}

func TestClientThatLeavesDoesNotOpenTheBreaker(t *testing.T) {
	r := startReplicated(t)
	for question, ask := range byDigest {
		for range failuresToOpen {
			ctx, cancel := context.WithCancel(t.Context())
			remove := r.primary.Inject(ecrtest.Fault{On: ecrtest.Manifest | ecrtest.Blob, Hang: true, Notify: cancel})
			if err := ask(ctx, r.Registry, r.blob); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", question, err)
			}
			remove()
		}
	}
	if ok, _ := r.members.primary().breaker.Enter(); !ok {
		t.Error("the primary counts as failing")
	}
	if got := r.replica.Stats().Requests; len(got) != 0 {
		t.Errorf("the replica was asked: %v", got)
	}
	wantAllSlots(t, r.Registry)
}

func TestReplicaNeedsNoConfigurationOfItsOwn(t *testing.T) {
	const host, replica = "123456789012.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	puller := ecr.Identity{RoleARN: "arn:aws:iam::123456789012:role/puller"}
	cfg := Config{
		Host: host, Timeout: time.Second,
		ECR: ECRConfig{APIEndpoint: "https://vpce.test", Identity: puller, Replicas: []string{replica}},
	}
	c, _ := newTestClient(t, cfg)
	members := registryOf(t, c, host).members
	if len(members) != 2 {
		t.Fatalf("%d members", len(members))
	}
	if got := members[1]; got.endpoint.String() != "https://"+replica || got.timeout != time.Second || got.ecr == nil {
		t.Errorf("endpoint %s, timeout %v, at ECR %t", got.endpoint, got.timeout, got.ecr != nil)
	}
	want := Config{Host: replica, Timeout: time.Second, ECR: ECRConfig{Identity: puller}}
	if diff := cmp.Diff(want, c.replicaConfig(replica, cfg)); diff != "" {
		t.Errorf("configuration of the replica (-want +got):\n%s", diff)
	}
	if _, err := c.Registry(replica); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clients may ask for it by its own name: %v", err)
	}
}

func TestReplicaMayHaveAnIdentityOfItsOwn(t *testing.T) {
	const host, replica = "123456789012.dkr.ecr.us-east-1.amazonaws.com", "210987654321.dkr.ecr.eu-west-1.amazonaws.com"
	other := ecr.Identity{Profile: "other"}
	cfg := Config{Host: host, ECR: ECRConfig{Identity: ecr.Identity{Profile: "one"}, Replicas: []string{replica}}}
	c, _ := newTestClient(t, cfg, Config{Host: replica, ECR: ECRConfig{Identity: other, Replicas: []string{host}}})
	if got := c.replicaConfig(replica, cfg).ECR.Identity; got != other {
		t.Errorf("its tokens are for %+v, want %+v", got, other)
	}
	if n := len(registryOf(t, c, host).members); n != 2 {
		t.Errorf("%d members: a replica has no replicas of its own", n)
	}
}
