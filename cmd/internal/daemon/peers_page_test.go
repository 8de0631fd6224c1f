package daemon

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
)

// startPeersPage serves a status page that shows the nodes of a status.
func startPeersPage(t *testing.T) (page *httptest.Server, show func(share.Status)) {
	t.Helper()
	store, err := cache.Open(t.TempDir(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var shown atomic.Pointer[share.Status]
	shown.Store(&share.Status{})
	a := admin.New(admin.Options{
		Store: store, Clients: proxy.New(proxy.Options{Store: store}), Name: "ip-10-0-12-34", Version: "v1.0.0",
		Peers: func() any { return shown.Load().Glance() },
	})
	ctx, quit := context.WithCancel(t.Context())
	page = httptest.NewServer(a.Handler())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	t.Cleanup(func() {
		quit()
		running.Wait()
		page.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return page, func(st share.Status) { shown.Store(&st) }
}

// largeCluster is a status of so many nodes: they exchange less and less, one is about to stop, one lies and one is dead.
func largeCluster(n int) (st share.Status) {
	for i := range n {
		node := share.Node{
			Address: fmt.Sprintf("10.0.%d.%d:5002", i/250, i%250+1), Zone: fmt.Sprintf("us-east-1%c", 'a'+i%3), Version: "v1.0.0",
			Given: int64(2<<30) / int64(i+1), Taken: int64(7<<30) / int64(2*i+1),
		}
		if i%40 == 0 {
			node.Version = "v1.1.0"
		}
		if node.Zone != "us-east-1a" {
			node.Given, node.Taken = 0, 0
		}
		node.Self, node.Draining = i == 0, i == 3
		if node.Self {
			node.Given, node.Taken = 0, 0
		}
		st.Given, st.Taken = st.Given+node.Given, st.Taken+node.Taken
		st.Nodes = append(st.Nodes, node)
	}
	st.Avoided = []share.Avoided{
		{Address: st.Nodes[6].Address, Why: "it sent wrong bytes of sha256:71c867dca2f651c62950064b2207f1cd5b18a4d389dede09f68a9019a4665b60", Until: time.Now().Add(8 * time.Minute), Lied: true},
		{Address: st.Nodes[9].Address, Why: "dial tcp 10.0.0.10:5002: connect: connection refused", Until: time.Now().Add(40 * time.Second)},
		{Address: "10.0.77.7:5002", Why: "it gave no sign of life in time", Until: time.Now().Add(4 * time.Second)},
	}
	return st
}

func TestStatusPageShowsTheZoneAtAGlance(t *testing.T) {
	b := startBrowser(t)
	page, show := startPeersPage(t)
	b.size(1200, 900, "light")
	b.do(chromedp.Navigate(page.URL + "/"))
	b.await(`!document.getElementById("peers-section").hidden`)
	st := largeCluster(5000)
	show(st)
	const tableRows = `document.querySelectorAll("#peers tbody tr").length`
	b.await(tableRows + ` > 0`)
	if n := eval[int](b, tableRows); n > 12 {
		t.Errorf("%d rows are shown", n)
	}
	section := b.text("#peers-section")
	for _, want := range []string{
		"4,999 others", "us-east-1a · 1,667", "v1.1.0 · 125", "sent wrong content", "connection refused", "about to stop",
		"10.0.77.7:5002 is avoided, for ", "other nodes with less", "9.04 GiB",
	} {
		if !strings.Contains(section, want) {
			t.Errorf("%q is not in the panel:\n%s", want, section)
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1200, 390, 320} {
			b.size(width, 2400, scheme)
			if got := eval[int64](b, `document.documentElement.scrollWidth`); got > width {
				t.Errorf("at a width of %d it is %d wide", width, got)
			}
			if low := eval[[]string](b, contrasts); len(low) > 0 {
				t.Errorf("%s: too little contrast: %q", scheme, low)
			}
			if dir := os.Getenv("LARDER_SCREENSHOTS"); dir != "" {
				if err := os.WriteFile(fmt.Sprintf("%s/peers-%s-%d.png", dir, scheme, width), b.screenshot(), 0o600); err != nil {
					t.Error(err)
				}
			}
		}
	}
	show(share.Status{Nodes: st.Nodes[:1]})
	b.await(`document.getElementById("peers-self").textContent.includes("knows no other one")`)
	b.wantQuiet(page.URL)
}
