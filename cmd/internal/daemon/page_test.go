package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// A paged is a Larder in this process with its status page. Its upstreams are a fake ECR, a fake ECR Public that
// throttles, and a dead registry.
type paged struct {
	t       *testing.T
	ecr     *ecrtest.Running
	public  *ecrtest.Running
	daemon  *Daemon        // does not serve: the servers clients and admin have its handlers
	base    *ecrtest.Added // an image that is pinned
	clients *httptest.Server
	admin   *httptest.Server
	quit    context.CancelFunc // ends the page's events

	operators *admin.Admin // whose handler admin has
}

const deadHost = "registry.example.net"

// startPaged starts it. The cache has room for some 31 MiB beside the index.
func startPaged(t *testing.T) *paged {
	t.Helper()
	p := &paged{t: t}
	for fake, opts := range map[**ecrtest.Running]ecrtest.Options{&p.ecr: {}, &p.public: {Public: true}} {
		var err error
		if *fake, err = ecrtest.Start(opts); err != nil {
			t.Fatal(err)
		}
	}
	setCredentials(t, p.ecr)
	cfg, err := config.Load(writeConfig(t, fmt.Sprintf(`listen: 127.0.0.1:0
admin: ""
cache: {dir: cache, min_free: 0, low_water: 100%%}
default_upstream: %q
upstreams:
  - {host: %[1]q, endpoint: %[2]q, ecr: {api_endpoint: %[2]q}}
  - {host: %[3]q, endpoint: %[4]q, ecr: {api_endpoint: %[4]q}}
  - {host: %[5]q, endpoint: "http://127.0.0.1:1", timeout: 1s}
  - {host: quay.example, offline: true}
policy:
  - {match: "%[1]s/legacy/*", mode: warn, age: 100h}
  - {match: "%[1]s/platform/*", mode: enforce, age: 1ns}
`, p.ecr.Host(), p.ecr.Endpoint, p.public.Host(), p.public.Endpoint, deadHost)))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Cache.MaxSize.Bytes = 82 << 20 // less than a configuration file may have
	p.daemon, err = New(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, quit := context.WithCancel(t.Context())
	p.quit = quit
	p.operators = p.daemon.operators(ctx)
	p.clients, p.admin = httptest.NewServer(p.daemon.proxy), httptest.NewServer(p.operators.Handler())
	var running sync.WaitGroup
	running.Go(func() { p.operators.Run(ctx) })
	t.Cleanup(func() {
		quit()
		running.Wait()
		p.admin.Close() // which waits for the events to end
		p.clients.Close()
		if err := errors.Join(p.daemon.Close(), p.ecr.Close(), p.public.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// get requests a path of a repository, and returns the answer's X-Cache.
func (p *paged) get(host, path, agent string) (xCache string, err error) {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.clients.URL+"/v2/"+path+"?ns="+host, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", agent)
	resp, err := p.clients.Client().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get("X-Cache"), err
}

// add adds an image with layers of these sizes to a fake, pulls it, and waits until all of it is in the cache.
func (p *paged) add(fake *ecrtest.Running, repo, tag string, seed uint64, layers ...int64) *ecrtest.Added {
	p.t.Helper()
	var image ecrtest.Image
	for i, size := range layers {
		image.Layers = append(image.Layers, ecrtest.Layer{Content: ecrtest.Random(seed<<8+uint64(i), size)})
	}
	added, err := fake.AddImage(repo, tag, image)
	if err != nil {
		p.t.Fatal(err)
	}
	paths := []string{repo + "/manifests/" + tag}
	for _, blob := range added.Blobs {
		paths = append(paths, repo+"/blobs/"+blob.Digest.String())
	}
	for _, path := range paths {
		if _, err := p.get(fake.Host(), path, "containerd/2.1.4"); err != nil {
			p.t.Fatal(err)
		}
	}
	for tick := time.Tick(pollInterval); len(p.daemon.store.Fills()) > 0; {
		<-tick
	}
	return added
}

// counter returns the sum of a metric over its labels, as Prometheus would scrape it.
func (p *paged) counter(name string) int64 {
	p.t.Helper()
	resp, err := p.admin.Client().Get(p.admin.URL + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(string(text)) {
		metric, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if labelled := strings.HasPrefix(metric, name+"{"); labelled || metric == name {
			if i := strings.LastIndexByte(value, ' '); i >= 0 {
				value = value[i+1:]
			}
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				p.t.Fatalf("%s: %v", line, err)
			}
			sum += v
		}
	}
	return int64(sum)
}

// slowly makes clients pull a blob that the upstream sends slowly. Calling let lets the rest arrive.
func (p *paged) slowly(repo string, size int64, agents ...string) (blob string, let func()) {
	p.t.Helper()
	desc, err := p.ecr.AddBlob(repo, ecrtest.Random(uint64(size), size))
	if err != nil {
		p.t.Fatal(err)
	}
	p.ecr.SetBandwidth(size / 20)
	var pulls sync.WaitGroup
	for _, agent := range agents {
		pulls.Go(func() {
			if _, err := p.get(p.ecr.Host(), repo+"/blobs/"+desc.Digest.String(), agent); err != nil {
				p.t.Errorf("pulling slowly: %v", err)
			}
		})
	}
	return desc.Digest.Encoded()[:12], func() {
		p.ecr.SetBandwidth(0)
		pulls.Wait()
	}
}

// The page shows a cache with a history: evicted images, a pinned one, an expired one, and a dead upstream.
func (p *paged) live() {
	p.t.Helper()
	p.add(p.ecr, "legacy/report", "v3", 6, 12<<20)
	p.add(p.ecr, "legacy/report", "v4", 7, 10<<20)
	p.add(p.ecr, "team/api", "v1.8.2", 1, 3<<20, 1<<20, 40_000)
	p.add(p.ecr, "team/web", "2026-11-20", 2, 2<<20, 900_000)
	expired := p.add(p.ecr, "team/web", "2026-09-02", 3, 2<<20, 300_000)
	p.base = p.add(p.ecr, "platform/base", "bookworm", 4, 4<<20)
	p.add(p.public, "docker/library/nginx", "1.29", 5, 2<<20, 700_000)
	if err := p.daemon.store.Pin(cache.Repository{Upstream: p.ecr.Host(), Name: "platform/base"}, "bookworm"); err != nil {
		p.t.Fatal(err)
	}
	verdict := cache.Verdict{
		Repository: cache.Repository{Upstream: p.ecr.Host(), Name: "team/web"}, Digest: expired.Root.Digest,
		Expiry: cache.Expiry{Since: time.Now().Add(-50 * time.Hour), Rule: 2, Source: upkeep.SourceECR},
	}
	if err := p.daemon.store.Expire([]cache.Verdict{verdict}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.get(deadHost, "tools/build/manifests/latest", "buildkit/0.25"); err != nil {
		p.t.Fatal(err)
	}
}

func TestStatusPageInABrowser(t *testing.T) {
	b := startBrowser(t)
	p := startPaged(t)
	p.live()
	b.size(1280, 1300, "light")
	b.do(chromedp.Navigate(p.admin.URL + "/"))
	b.await(`document.querySelectorAll("#images tbody tr").length >= 5`)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *browser, *paged)
	}{
		{"images are found and sorted", testPageFindsAndSorts},
		{"a fill moves", testPageFollowsAFill},
		{"sums are those of the metrics", testPageAgreesWithMetrics},
		{"what went and what fails is told", testPageTellsOfTrouble},
		{"what the policy decides is told", testPageTellsOfThePolicy},
		{"text can be read, dark and light", testPageCanBeRead},
		{"a phone shows it without scrolling", testPageFitsAPhone},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.t, p.t = t, t
			test.run(t, b, p)
		})
	}
	b.t, p.t = t, t
	b.wantQuiet(p.admin.URL)
	t.Run("a broken connection is made anew", func(t *testing.T) {
		b.t, p.t = t, t
		testPageConnectsAgain(t, b, p)
	})
	t.Run("the daemon's end is noticed", func(t *testing.T) {
		b.t = t
		p.quit()
		b.await(`document.getElementById("live").innerText.startsWith("no connection")`)
	})
}

func testPageFindsAndSorts(t *testing.T, b *browser, _ *paged) {
	const names = `[...document.querySelectorAll("#images tbody td:first-child")].map((e) => e.innerText)`
	search := func(text string) {
		eval[bool](b, `document.getElementById("search").select() ?? true`)
		b.do(chromedp.SendKeys("#search", text))
	}
	for _, test := range []struct {
		search string
		want   []string
	}{
		{"Team/WEB", []string{"team/web:2026-09-02", "team/web:2026-11-20"}},
		{"public.ecr nginx", []string{"docker/library/nginx:1.29"}},
		{"pinned", []string{"platform/base:bookworm"}},
		{"expired", []string{"team/web:2026-09-02"}},
		{"nothing has this name", nil},
	} {
		search(test.search)
		if got := eval[[]string](b, names+`.sort()`); !slices.Equal(got, test.want) {
			t.Errorf("searched for %q: %q, want %q", test.search, got, test.want)
		}
	}
	if got := b.text("#images-empty"); got != "No image matches." {
		t.Errorf("without a match it says %q", got)
	}
	search("team")
	b.do(chromedp.Click(`[data-sort="name"]`))
	if got, want := eval[[]string](b, names), []string{"team/api:v1.8.2", "team/web:2026-09-02", "team/web:2026-11-20"}; !slices.Equal(got, want) {
		t.Errorf("by name: %q, want %q", got, want)
	}
	b.do(chromedp.Click(`[data-sort="bytes"]`))
	if got, want := eval[[]string](b, names), []string{"team/api:v1.8.2", "team/web:2026-11-20", "team/web:2026-09-02"}; !slices.Equal(got, want) {
		t.Errorf("by size: %q, want %q", got, want)
	}
	b.do(chromedp.Click(`[data-sort="bytes"]`))
	if got := eval[[]string](b, names); len(got) != 3 || got[0] != "team/web:2026-09-02" {
		t.Errorf("by size, the smallest first: %q", got)
	}
	if got := eval[string](b, `document.querySelector('[data-sort="bytes"]').closest("th").ariaSort`); got != "ascending" {
		t.Errorf("the order is told as %q", got)
	}
	search(" ")
	b.do(chromedp.Click(`[data-sort="used"]`))
}

func testPageFollowsAFill(t *testing.T, b *browser, p *paged) {
	blob, let := p.slowly("team/slow", 4<<20, "containerd/2.1.4", "<img/src=x/onerror=alert(1)>")
	defer let()
	const bar = `document.querySelector("#fills progress")`
	b.await(bar + ` && ` + bar + `.value > 0 && document.querySelector("#fills").innerText.includes("onerror")`)
	row := b.text("#fills tbody tr")
	for _, want := range []string{blob, "team/slow", "containerd/2.1.4 at 127.0.0.1", "<img/src=x/onerror=alert(1)> at 127.0.0.1", "of 4.00 MiB"} {
		if !strings.Contains(row, want) {
			t.Errorf("%q is not in %q", want, row)
		}
	}
	if n := eval[int](b, `document.querySelectorAll("#fills img").length`); n != 0 {
		t.Error("what a client calls itself is taken for markup")
	}
	before := eval[float64](b, bar+`.value`)
	b.await(fmt.Sprintf(`%s.value > %f`, bar, before))
	let()
	b.await(`document.querySelectorAll("#fills tbody tr").length === 0`)
	if got := b.text("#fills-empty"); got != "Nothing is being fetched." {
		t.Errorf("afterwards it says %q", got)
	}
}

func testPageAgreesWithMetrics(t *testing.T, b *browser, p *paged) {
	for shown, metric := range map[string]string{
		"fetched": "larder_fill_bytes_total",
		"evicted": "larder_evictions_total",
		"served":  "larder_response_bytes_total",
	} {
		want := p.counter(metric)
		if want == 0 {
			t.Errorf("%s is 0: there is nothing to compare", metric)
		}
		b.await(fmt.Sprintf(`document.getElementById("totals").dataset.%s === "%d"`, shown, want))
	}
}

func testPageTellsOfTrouble(t *testing.T, b *browser, p *paged) {
	longer := http.Header{"Retry-After": {"60"}} // longer than any client waits
	p.public.Inject(ecrtest.Fault{On: ecrtest.Manifest, Throttle: true, Times: 1, Header: longer})
	if _, err := p.get(p.public.Host(), "docker/library/nginx/manifests/2.0", "containerd/2.1.4"); err != nil {
		t.Fatal(err)
	}
	b.await(`document.querySelector("#upstreams tbody").innerText.includes("throttled")`)
	for selector, wants := range map[string][]string{
		"#evictions tbody": {"least recently used", p.ecr.Host() + "/legacy/report"},
		"#upstreams tbody": {"quay.example", "offline", deadHost, "failing", "connection refused", "ECR token", "good for 11 h", "bearer token", "paused for"},
	} {
		got := b.text(selector)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %s: %s", want, selector, got)
			}
		}
	}
}

func testPageTellsOfThePolicy(t *testing.T, b *browser, p *paged) {
	b.await(`!document.getElementById("policy-section").hidden && document.querySelector("#images .verdict .chip")`)
	for selector, wants := range map[string][]string{
		"#policy tbody": {p.ecr.Host() + "/legacy/*", "warn", p.ecr.Host() + "/platform/*", "enforce"},
		"#denied tbody": {p.ecr.Host() + "/legacy/report:v4", "would be refused", "must be 100h old"},
		"#images tbody": {"allowed"},
	} {
		got := b.text(selector)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %s: %s", want, selector, got)
			}
		}
	}
	status := p.daemon.policy.Status(0)
	for i, r := range status.Rules {
		want := []int64{r.Allowed, r.Refused, r.Unknown}
		got := eval[[]int64](b, fmt.Sprintf(`[...document.querySelectorAll("#policy tbody tr")[%d].cells].slice(2, 5).map((c) => Number(c.innerText))`, i))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the page counts %v, and the daemon %v", r.Rule, got, want)
		}
	}
}

// testPageConnectsAgain makes the browser log a broken connection, which is not a complaint by the page.
func testPageConnectsAgain(t *testing.T, b *browser, p *paged) {
	eval[bool](b, `window.failures = [], window.addEventListener("error", (e) => failures.push(e.message)), true`)
	p.admin.CloseClientConnections()
	b.await(`document.getElementById("live").innerText.startsWith("no connection")`)
	b.await(`document.getElementById("live").innerText === "live"`)
	testPageAgreesWithMetrics(t, b, p)
	p.add(p.ecr, "team/late", "v1", 8, 100_000)
	testPageAgreesWithMetrics(t, b, p)
	if failures := eval[[]string](b, `failures`); len(failures) > 0 {
		t.Errorf("the page fails with %q", failures)
	}
}

// contrasts lists the texts whose contrast is below what WCAG 2.2 asks for (1.4.3, level AA).
const contrasts = `(() => {
	const rgb = (c) => c.match(/[\d.]+/g).map(Number);
	const light = (c) => {
		const [r, g, b] = rgb(c).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const ground = (e) => {
		const c = getComputedStyle(e).backgroundColor;
		return (rgb(c)[3] ?? 1) > 0.99 ? c : ground(e.parentElement);
	};
	const low = [];
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		const style = getComputedStyle(e);
		const [a, b] = [light(e.closest("svg") ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.textContent.trim().slice(0, 40));
	}
	return low;
})()`

func testPageCanBeRead(t *testing.T, b *browser, _ *paged) {
	grounds := make(map[string]bool)
	for _, scheme := range []string{"light", "dark"} {
		b.size(1280, 1300, scheme)
		if low := eval[[]string](b, contrasts); len(low) > 0 {
			t.Errorf("%s: too little contrast: %q", scheme, low)
		}
		grounds[eval[string](b, `getComputedStyle(document.body).backgroundColor`)] = true
	}
	if len(grounds) != 2 {
		t.Errorf("dark and light have the background %v", grounds)
	}
}

func testPageFitsAPhone(t *testing.T, b *browser, _ *paged) {
	for _, width := range []int64{320, 390, 700, 820} {
		b.size(width, 800, "dark")
		if got := eval[int64](b, `document.documentElement.scrollWidth`); got > width {
			t.Errorf("at a width of %d it is %d wide", width, got)
		}
	}
}
