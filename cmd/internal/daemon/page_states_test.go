package daemon

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// axe returns the source of axe-core (MPL-2.0), as it was published: it finds what keeps people from using a page.
func axe(t *testing.T) string {
	t.Helper()
	file, err := os.Open("testdata/axe/axe-4.10.3.min.js.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// violations runs axe by the rules of WCAG 2.2, levels A and AA, and its own best practices. It lists the rules that are
// violated, with the first element of each, and fails where axe has found nothing to check.
const violations = `axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then((r) => {
	if (r.passes.length < 10) throw new Error("axe has checked next to nothing");
	return r.violations.map((v) => v.id + ": " + v.help + ": " + v.nodes[0].html.slice(0, 200) + " " + (v.nodes[0].any[0]?.message ?? ""));
})`

// looks checks the page in the two widths and both colour schemes.
func (b *browser) looks(source, state string) {
	b.t.Helper()
	for _, width := range []int64{1200, 390} {
		for _, scheme := range []string{"light", "dark"} {
			b.size(width, 900, scheme)
			if got := eval[int64](b, `document.documentElement.scrollWidth`); got > width {
				b.t.Errorf("%s, %s, at a width of %d: it is %d wide", state, scheme, width, got)
			}
			if eval[bool](b, `window.axe === undefined`) {
				eval[bool](b, source+`; true`)
			}
			for _, violation := range eval[[]string](b, violations) {
				b.t.Errorf("%s, %s, at a width of %d: %s", state, scheme, width, violation)
			}
			if dir := os.Getenv("LARDER_SCREENSHOTS"); dir != "" {
				if err := os.WriteFile(fmt.Sprintf("%s/%s-%d-%s.png", dir, state, width, scheme), b.screenshot(), 0o600); err != nil {
					b.t.Error(err)
				}
			}
		}
	}
}

func TestStatusPageInEachState(t *testing.T) {
	b := startBrowser(t)
	p := startPaged(t)
	source := axe(t)
	b.size(1200, 900, "light")
	b.do(chromedp.Navigate(p.admin.URL + "/"))
	b.await(`document.getElementById("live").innerText === "live" && document.querySelectorAll("#upstreams tbody tr").length === 4`)

	// Empty: nothing was asked for yet.
	b.await(`document.querySelectorAll("#chart-traffic text").length > 0`)
	if ticks := eval[[]string](b, `[...document.querySelectorAll("#chart-traffic text[text-anchor=end]")].map((e) => e.textContent).filter((s) => s.includes("/s"))`); len(ticks) != 1 {
		t.Errorf("the axis of no traffic has %q", ticks)
	}
	for selector, want := range map[string]string{
		"#upstreams tbody": "not asked yet",
		"#images-empty":    "The cache is empty",
		"#recent-empty":    "No client has asked for content yet.",
		"#runtimes":        "No client has asked for content yet.",
	} {
		if got := b.text(selector); !strings.Contains(got, want) {
			t.Errorf("empty: %s: %q, want %q", selector, got, want)
		}
	}
	b.looks(source, "empty")

	// Busy: with images, a fill, requests, refusals, and the configuration unfolded.
	p.live()
	if _, err := p.get("quay.io", "team/app/manifests/v1", "containerd/2.1.4"); err != nil {
		t.Fatal(err)
	}
	_, let := p.slowly("team/slow", 4<<20, "containerd/2.1.4")
	defer let()
	b.await(`document.querySelectorAll("#images tbody tr").length >= 5 && document.querySelector("#fills progress")?.value > 0`)
	for selector, wants := range map[string][]string{
		"#recent tbody":  {"GET " + p.ecr.Host() + "/team/api", "containerd/2.1.4 at 127.0.0.1", "quay.io is not among this Larder's upstreams", "404"},
		"#refused tbody": {"quay.io", "is not among this Larder's upstreams"},
		"#runtimes":      {"containerd", "buildkit"},
	} {
		got := b.text(selector)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("busy: %q is not in %s: %s", want, selector, got)
			}
		}
	}
	b.do(chromedp.Click(`#recent-failed`))
	if got := b.text("#recent tbody"); !strings.Contains(got, "quay.io") || strings.Contains(got, "team/api") {
		t.Errorf("of the failed requests it shows %s", got)
	}
	eval[bool](b, `document.querySelectorAll("main details, footer details").forEach((d) => d.open = true) ?? true`)
	for _, want := range []string{"cache.max_size", "upstreams[0].host", p.ecr.Host(), "tags.ttl", "1m0s"} {
		if got := b.text("#settings tbody"); !strings.Contains(got, want) {
			t.Errorf("%q is not in the configuration: %s", want, got)
		}
	}
	if got := b.text("footer dl"); !strings.Contains(got, "stale") || !strings.Contains(got, "passed through") {
		t.Errorf("the words are explained by %q", got)
	}
	b.looks(source, "busy")
	testPageShowsAnImage(t, b, p, source)
	let()

	// Failing: an upstream refuses with a long error, and the runtime ignores Larder.
	testPageTellsOfFailures(t, b, p, source)

	// Offline: the page has lost the daemon.
	p.quit()
	b.await(`document.getElementById("live").innerText.startsWith("no connection; figures of ") && document.body.classList.contains("lost")`)
	b.looks(source, "offline")
}

// testPageShowsAnImage opens the dialog of an image with a missing layer.
func testPageShowsAnImage(t *testing.T, b *browser, p *paged, source string) {
	t.Helper()
	added, err := p.ecr.AddImage("team/part", "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(91, 3<<20)}, {Content: ecrtest.Random(92, 1<<20)}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"manifests/v1", "blobs/" + added.Blobs[0].Digest.String()} {
		if _, err := p.get(p.ecr.Host(), "team/part/"+path, "containerd/2.1.4"); err != nil {
			t.Fatal(err)
		}
	}
	const button = `#images button[data-image$="team/part:v1"]`
	b.await(`document.querySelector('` + button + `')`)
	eval[bool](b, `document.querySelector('`+button+`').click() ?? true`)
	b.await(`document.querySelectorAll("#image-parts li").length > 0`)
	got := b.text("#image")
	for _, want := range []string{p.ecr.Host() + "/team/part:v1", added.Root.Digest.String(), "missing", added.Blobs[0].Digest.String(), "used less recently", "configuration"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the image's detail: %s", want, got)
		}
	}
	b.looks(source, "image")
	b.do(chromedp.Click(`#image .copy`))
	b.await(`["copied", "selected"].includes(document.querySelector("#image .copy").innerText)`)
	b.do(chromedp.KeyEvent("\x1b"))
	b.await(`!document.getElementById("image").open`)
	eval[bool](b, `document.querySelector('#images button[data-image$="platform/base:bookworm"]').click() ?? true`)
	b.await(`document.getElementById("image").innerText.includes("It is pinned: it is never evicted.")`)
	b.do(chromedp.Click(`#image-close`))
}

func testPageTellsOfFailures(t *testing.T, b *browser, p *paged, source string) {
	t.Helper()
	denied := "User: arn:aws:sts::123456789012:assumed-role/node/i-0123456789abcdef0 is not authorized to perform: " + strings.Repeat("ecr:BatchGetImage on resource arn:aws:ecr:us-east-1:123456789012:repository/team/api ", 6)
	p.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Code: "DENIED", Status: http.StatusForbidden, Message: denied})
	if _, err := p.get(p.ecr.Host(), "team/api/manifests/v9", "containerd/2.1.4"); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	p.operators.API().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/api/v1/mirror",
		strings.NewReader(`{"faults": [{"what": "config_path in /etc/containerd/config.toml names two folders", "advice": "config_path = \"/etc/containerd/certs.d\""}]}`)))
	if w.Code != http.StatusNoContent {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	b.await(`!document.getElementById("unused").hidden && document.querySelector("#upstreams tbody").innerText.includes("failing")`)
	for _, want := range []string{"Installed, but not used", "names two folders", `config_path = "/etc/containerd/certs.d"`} {
		if got := b.text("#unused"); !strings.Contains(got, want) {
			t.Errorf("%q is not in the notice: %s", want, got)
		}
	}
	b.looks(source, "failing")
	b.size(1200, 900, "light")
	if height := eval[float64](b, `Math.max(...[...document.querySelectorAll("#upstreams tbody tr")].map((r) => r.offsetHeight))`); height > 130 {
		t.Errorf("a row of an upstream is %.0f pixels high", height)
	}
	// What is unfolded stays so when the row changes.
	const message = `document.querySelector("#recent details.long")`
	b.await(message)
	eval[bool](b, `(`+message+`.open = true, window.unfolded = `+message+`, true)`)
	if _, err := p.get(p.ecr.Host(), "team/api/manifests/v1.8.2", "cri-o/1.33"); err != nil {
		t.Fatal(err)
	}
	b.await(`document.querySelector("#runtimes").innerText.includes("cri-o") && document.querySelectorAll("#recent tbody tr").length > 1`)
	b.await(`[...document.querySelectorAll("#recent details.long")].includes(unfolded) && unfolded.open`)
}
