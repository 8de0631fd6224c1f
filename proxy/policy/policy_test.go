package policy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/name"
)

const (
	host  = "registry.example.com"
	oci   = "application/vnd.oci.image.manifest.v1+json"
	index = "application/vnd.oci.image.index.v1+json"
)

// shelf is a Content with some images.
type shelf struct {
	documents map[digest.Digest]string
	naming    map[digest.Digest][]Image
	text      map[digest.Digest]bool
}

func (s shelf) Naming(image Image) []Image { return s.naming[image.Digest] }

func (s shelf) Manifest(_ context.Context, image Image) ([]byte, error) {
	if doc, ok := s.documents[image.Digest]; ok {
		return []byte(doc), nil
	}
	return []byte(`{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"}]}`), nil
}

func (s shelf) IsText(_ context.Context, _ Image, blob digest.Digest) (bool, error) {
	return s.text[blob], nil
}

// condition is a Condition whose answers a test sets.
type condition struct {
	mu     sync.Mutex
	answer map[digest.Digest]Answer
	err    error
	asked  atomic.Int64
}

func (c *condition) Evaluate(_ context.Context, image Image) (Answer, error) {
	c.asked.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer[image.Digest], c.err
}

func (c *condition) set(image Image, a Answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == nil {
		c.answer = make(map[digest.Digest]Answer)
	}
	c.answer[image.Digest], c.err = a, err
}

func image(content, mediaType string) Image {
	return Image{Host: host, Repository: "prod/app", Digest: digest.FromString(content), MediaType: mediaType}
}

func newPolicy(t testing.TB, opts Options, all ...*Rule) *Policy {
	t.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	p, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	p.Use(all)
	return p
}

func rule(match string) *Rule {
	p, ok := name.ParsePattern(match)
	if !ok {
		panic(match)
	}
	return &Rule{Match: p, Mode: Enforce, Offline: time.Hour, Basis: "1"}
}

func decide(t *testing.T, p *Policy, im Image, content Content) *Decision {
	t.Helper()
	r := p.Rule(im.Host, im.Repository)
	if r == nil {
		t.Fatal("no rule covers it")
	}
	d, err := p.Decide(t.Context(), r, im, content)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFirstRuleThatMatchesCounts(t *testing.T) {
	open, all := rule(host+"/prod/open"), rule(host+"/*")
	all.Age = time.Hour
	p := newPolicy(t, Options{}, open, all)
	for repo, want := range map[string]*Rule{"prod/open": nil, "prod/app": all, "other": all} {
		if got := p.Rule(host, repo); got != want {
			t.Errorf("%s is covered by %+v, want %+v", repo, got, want)
		}
	}
	if got := p.Rule("elsewhere.example.com", "prod/app"); got != nil {
		t.Errorf("another host is covered by %s", got.Name())
	}
}

func TestManyCallersShareOneDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := &slowCondition{release: release}
		r := rule(host + "/prod/*")
		r.Signed = c
		p := newPolicy(t, Options{}, r)
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				if d, err := p.Decide(t.Context(), r, image("a", oci), shelf{}); err != nil || d.Result != Allowed {
					t.Errorf("got %+v, %v", d, err)
				}
			})
		}
		left, leave := context.WithCancel(t.Context())
		callers.Go(func() {
			if _, err := p.Decide(left, r, image("a", oci), shelf{}); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left got %v", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		callers.Wait()
		if n := c.asked.Load(); n != 1 {
			t.Errorf("the condition was asked %d times, want once", n)
		}
	})
}

// slowCondition answers when it is released.
type slowCondition struct {
	release chan struct{}
	asked   atomic.Int64
}

func (c *slowCondition) Evaluate(ctx context.Context, _ Image) (Answer, error) {
	c.asked.Add(1)
	select {
	case <-c.release:
		return Answer{Holds: true}, nil
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

func TestAgeCountsFromThePushAndElseFromFirstSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pushed := map[digest.Digest]time.Time{
			image("old", oci).Digest:    time.Now().Add(-100 * time.Hour),
			image("recent", oci).Digest: time.Now().Add(-time.Hour),
			image("future", oci).Digest: time.Now().Add(100 * time.Hour),
		}
		r := rule(host + "/prod/*")
		r.Age = 72 * time.Hour
		p := newPolicy(t, Options{Pushed: func(_ context.Context, im Image) (time.Time, bool, error) {
			at, ok := pushed[im.Digest]
			return at, ok, nil
		}}, r)
		check := func(want map[string]Result) {
			t.Helper()
			for content, result := range want {
				if d := decide(t, p, image(content, oci), shelf{}); d.Result != result {
					t.Errorf("%s is %s, want %s: %s", content, d.Result, result, d.Why())
				}
			}
		}
		check(map[string]Result{"old": Allowed, "recent": Refused, "future": Refused, "not told": Refused})
		time.Sleep(71 * time.Hour) //nolint:forbidigo // synctest's clock: no real time passes
		check(map[string]Result{"old": Allowed, "recent": Allowed, "future": Refused, "not told": Refused})
		time.Sleep(time.Hour) //nolint:forbidigo // synctest's clock: no real time passes
		check(map[string]Result{"future": Allowed, "not told": Allowed})
	})
}

func TestAgeOfWhatIsHereLongEnoughAsksNobody(t *testing.T) {
	r := rule(host + "/prod/*")
	r.Age = time.Hour
	p := newPolicy(t, Options{
		Pushed: func(context.Context, Image) (time.Time, bool, error) {
			t.Error("the registry was asked")
			return time.Time{}, false, nil
		},
		Seen: func(Image) (time.Time, bool) { return time.Now().Add(-2 * time.Hour), true },
	}, r)
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed {
		t.Errorf("got %s: %s", d.Result, d.Why())
	}
}

func TestRegistryThatCannotBeAskedDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(condition)
		c.set(image("a", oci), Answer{}, errors.New("too many requests"))
		r := rule(host + "/prod/*")
		r.Signed = c
		p := newPolicy(t, Options{}, r)
		for range 3 {
			if d := decide(t, p, image("a", oci), shelf{}); d.Result != Unknown || !strings.Contains(d.String(), "too many requests") {
				t.Errorf("got %s: %s", d.Result, d)
			}
		}
		if n := c.asked.Load(); n != 1 {
			t.Errorf("the registry that throttles was asked %d times at once", n)
		}
		c.set(image("a", oci), Answer{Holds: true}, nil)
		time.Sleep(RetryAfter) //nolint:forbidigo // synctest's clock: no real time passes
		if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed {
			t.Errorf("afterwards got %s", d)
		}
	})
}

// A condition that refuses decides, whatever another one cannot say.
func TestOneRefusalIsEnough(t *testing.T) {
	unsigned, unreachable := new(condition), new(condition)
	unsigned.set(image("a", oci), Answer{Reason: "it has no signature"}, nil)
	unreachable.set(image("a", oci), Answer{}, errors.New("timed out"))
	r := rule(host + "/prod/*")
	r.Signed, r.Findings = unsigned, unreachable
	p := newPolicy(t, Options{}, r)
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Refused || d.Why() != "signed: it has no signature" {
		t.Errorf("got %s: %s", d.Result, d.Why())
	}
}

func TestLastDecisionStandsOfflineAndAfterARestartUntilItsTimeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policy.json")
		c := new(condition)
		c.set(image("a", oci), Answer{Holds: true, Until: time.Now().Add(10 * time.Minute)}, nil)
		c.set(image("refused", oci), Answer{Until: time.Now().Add(10 * time.Minute)}, nil)
		r := rule(host + "/prod/*")
		r.Signed = c
		p := newPolicy(t, Options{File: file}, r)
		decide(t, p, image("a", oci), shelf{})
		decide(t, p, image("refused", oci), shelf{})
		p.save()
		c.set(image("a", oci), Answer{}, errors.New("offline"))

		p = newPolicy(t, Options{File: file}, r)
		time.Sleep(30 * time.Minute) //nolint:forbidigo // synctest's clock: no real time passes
		if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed || d.Stands == "" {
			t.Errorf("while it stands: %s: %s", d.Result, d)
		}
		if d := decide(t, p, image("refused", oci), shelf{}); d.Result != Refused {
			t.Errorf("a refusal that cannot be made again is %s", d)
		}
		if d := decide(t, p, image("never decided", oci), shelf{}); d.Result != Unknown {
			t.Errorf("what was never decided is %s", d)
		}
		time.Sleep(31 * time.Minute) //nolint:forbidigo // synctest's clock: no real time passes
		if d := decide(t, p, image("a", oci), shelf{}); d.Result != Unknown {
			t.Errorf("after policy.offline: %s", d)
		}
	})
}

func TestChangedRuleIsDecidedAgainAtOnce(t *testing.T) {
	c := new(condition)
	c.set(image("a", oci), Answer{Holds: true}, nil)
	r := rule(host + "/prod/*")
	r.Signed = c
	p := newPolicy(t, Options{}, r)
	decide(t, p, image("a", oci), shelf{})
	c.set(image("a", oci), Answer{Reason: "its key is not trusted any more"}, nil)
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed {
		t.Fatalf("under the same rule: %s", d)
	}
	changed := rule(host + "/prod/*")
	changed.Signed, changed.Basis = c, "2"
	p.Use([]*Rule{changed})
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Refused {
		t.Errorf("under the changed rule: %s", d)
	}
	// The decision of another rule is not one to fall back on.
	again := rule(host + "/prod/*")
	again.Signed, again.Basis = c, "3"
	c.set(image("a", oci), Answer{}, errors.New("offline"))
	p.Use([]*Rule{again})
	if d := decide(t, p, image("a", oci), shelf{}); d.Result != Unknown {
		t.Errorf("under a third rule, offline: %s", d)
	}
}

func TestChildIsAllowedThroughItsIndexButForItsFindings(t *testing.T) {
	signatures, scans := new(condition), new(condition)
	list, child, bad, other := image("index", index), image("child", oci), image("bad", oci), image("other", oci)
	for _, im := range []Image{child, bad, other} {
		signatures.set(im, Answer{Reason: "it has no signature"}, nil)
		scans.set(im, Answer{Holds: im != bad, Reason: "CVE-2026-0001"}, nil)
	}
	signatures.set(list, Answer{Holds: true}, nil)
	content := shelf{naming: map[digest.Digest][]Image{child.Digest: {list}, bad.Digest: {list}}}
	r := rule(host + "/prod/*")
	r.Signed, r.Findings = signatures, scans
	p := newPolicy(t, Options{}, r)
	for im, want := range map[Image]Result{list: Allowed, child: Allowed, bad: Refused, other: Refused} {
		if d := decide(t, p, im, content); d.Result != want {
			t.Errorf("%s is %s, want %s", im.Digest, d, want)
		}
	}
	if d := decide(t, p, child, content); d.Via != list.Digest {
		t.Errorf("the child is allowed through %q", d.Via)
	}
	if _, asked := scans.answer[list.Digest]; asked || scans.asked.Load() != 3 {
		t.Errorf("findings were asked %d times, want once for each platform", scans.asked.Load())
	}
}

func TestChildOfAnUndecidedIndexIsNotRefused(t *testing.T) {
	list, child := image("index", index), image("child", oci)
	r := rule(host + "/prod/*")
	r.Signed = undecidedIndex{}
	p := newPolicy(t, Options{}, r)
	if d := decide(t, p, child, shelf{naming: map[digest.Digest][]Image{child.Digest: {list}}}); d.Result != Unknown {
		t.Errorf("got %s: %s", d.Result, d)
	}
}

// undecidedIndex has no signature for images and cannot tell for indexes.
type undecidedIndex struct{}

func (undecidedIndex) Evaluate(_ context.Context, im Image) (Answer, error) {
	if isIndex(im.MediaType) {
		return Answer{}, errors.New("throttled")
	}
	return Answer{Reason: "it has no signature"}, nil
}

func TestOnlyWhatNoRuntimeCanRunIsExempt(t *testing.T) {
	const (
		imageConfig = "application/vnd.oci.image.config.v1+json"
		empty       = "application/vnd.oci.empty.v1+json"
		layer       = "application/vnd.oci.image.layer.v1.tar+gzip"
		simple      = "application/vnd.dev.cosign.simplesigning.v1+json"
		notation    = "application/vnd.cncf.notary.signature"
		jose        = "application/jose+json"
		bundle      = "application/vnd.dev.sigstore.bundle.v0.3+json"
	)
	text, binary := digest.FromString("text"), digest.FromString("binary")
	doc := func(artifactType, config, layerType string, blob digest.Digest) string {
		return `{"artifactType":"` + artifactType + `","config":{"mediaType":"` + config + `"},"layers":[{"mediaType":"` + layerType + `","digest":"` + blob.String() + `"}],"subject":{"digest":"` + text.String() + `"}}`
	}
	for what, test := range map[string]struct {
		document string
		exempt   bool
	}{
		"notation's signature":                               {doc("", notation, jose, text), true},
		"notation's signature with an empty config":          {doc(notation, empty, jose, text), true},
		"sigstore's bundle":                                  {doc(bundle, empty, bundle, text), true},
		"cosign's signature under its tag":                   {doc("", imageConfig, simple, text), true},
		"cosign's signature whose layer is no text":          {doc("", imageConfig, simple, binary), false},
		"an image with the artifact type of a signature":     {doc(notation, imageConfig, layer, binary), false},
		"the same with layers of a signature that are none":  {doc(notation, imageConfig, jose, binary), false},
		"an image layer in a signature":                      {doc(notation, empty, layer, binary), false},
		"an image with a subject":                            {doc("", imageConfig, layer, binary), false},
		"an artifact of another type":                        {doc("application/x-model", empty, "application/x-weights", binary), false},
		"a config that only Docker takes for one":            {doc(notation, "application/octet-stream", jose, binary), false},
		"an image without layers":                            {`{"config":{"mediaType":"` + imageConfig + `"},"layers":[]}`, false},
		"a signature whose layer is elsewhere":               {`{"artifactType":"` + notation + `","config":{"mediaType":"` + empty + `"},"layers":[{"mediaType":"` + jose + `","urls":["https://example.com"]}]}`, false},
		"an artifact manifest of ORAS":                       {`{"artifactType":"` + notation + `","blobs":[{"mediaType":"` + jose + `"}]}`, true},
		"an artifact manifest of another type, with no blob": {`{"artifactType":"application/x-model"}`, false},
	} {
		t.Run(what, func(t *testing.T) {
			r := rule(host + "/prod/*")
			r.Signed = new(condition) // which refuses
			p := newPolicy(t, Options{}, r)
			im := image(test.document, oci)
			d := decide(t, p, im, shelf{documents: map[digest.Digest]string{im.Digest: test.document}, text: map[digest.Digest]bool{text: true}})
			if d.Exempt != test.exempt || (d.Result == Allowed) != test.exempt {
				t.Errorf("got %s, exempt %v", d.Result, d.Exempt)
			}
		})
	}
}

// Where a registry has no lists of referrers, an index stands for one. It is judged by what it lists, not by what it says
// of that.
func TestIndexIsExemptOnlyIfItListsOnlyAttachments(t *testing.T) {
	const (
		signature = `{"config":{"mediaType":"application/vnd.cncf.notary.signature"},"layers":[{"mediaType":"application/jose+json"}]}`
		runnable  = `{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar"}]}`
	)
	entry := func(document, more string) string {
		return `{"mediaType":"` + oci + `","artifactType":"application/vnd.cncf.notary.signature","digest":"` + digest.FromString(document).String() + `"` + more + `}`
	}
	for what, test := range map[string]struct {
		entries string
		exempt  bool
	}{
		"signatures":                 {entry(signature, ""), true},
		"an image that says it is":   {entry(signature, "") + "," + entry(runnable, ""), false},
		"a signature for a platform": {entry(signature, `,"platform":{"os":"linux","architecture":"amd64"}`), false},
		"an index in it":             {`{"mediaType":"` + index + `","digest":"` + digest.FromString(signature).String() + `"}`, false},
		"nothing":                    {"", false},
	} {
		t.Run(what, func(t *testing.T) {
			r := rule(host + "/prod/*")
			r.Signed = new(condition) // which refuses
			p := newPolicy(t, Options{}, r)
			document := `{"manifests":[` + test.entries + `]}`
			content := shelf{documents: map[digest.Digest]string{}}
			for _, text := range []string{document, signature, runnable} {
				content.documents[digest.FromString(text)] = text
			}
			if d := decide(t, p, image(document, index), content); d.Exempt != test.exempt || (d.Result == Allowed) != test.exempt {
				t.Errorf("got %s, exempt %v", d.Result, d.Exempt)
			}
		})
	}
}

func TestDamagedAndLaterFilesAreIgnored(t *testing.T) {
	for _, content := range []string{"", "{", `{"version":2,"decisions":[{"upstream":"a"}]}`, `{"version":1,"decisions":[{"digest":"x"}]}`} {
		file := filepath.Join(t.TempDir(), "policy.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if p := newPolicy(t, Options{File: file}); p.known.Len() != 0 {
			t.Errorf("%q has %d decisions", content, p.known.Len())
		}
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	r := rule(host + "/prod/*")
	r.Age = time.Hour
	p := newPolicy(t, Options{Seen: func(Image) (time.Time, bool) { return time.Now().Add(-2 * time.Hour), true }}, r)
	im := image("a", oci)
	decide(t, p, im, shelf{})
	allocs := testing.AllocsPerRun(100, func() {
		r := p.Rule(im.Host, im.Repository)
		p.Count(r, p.Known(r, im).Result)
		p.Rule("elsewhere.example.com", "app")
	})
	if allocs != 0 {
		t.Errorf("a hit allocates %v times", allocs)
	}
}

func TestRunKeepsTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policy.json")
		r := rule(host + "/prod/*")
		r.Age = time.Hour
		p := newPolicy(t, Options{File: file}, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		decide(t, p, image("a", oci), shelf{})
		time.Sleep(saveEvery + time.Second) //nolint:forbidigo // synctest's clock: no real time passes
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
		stop()
		running.Wait()
		if all := newPolicy(t, Options{File: file}, r).Decisions(); len(all) != 1 || all[0].Result != Refused || all[0].Rule != r.Name() {
			t.Errorf("the next process knows %+v", all)
		}
	})
}
