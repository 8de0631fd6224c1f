package daemon

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
)

var update = flag.Bool("update", false, "take the status page's screenshot anew")

// screenshotFile is the one in the documents.
const screenshotFile = repository + "/proxy/admin/page/screenshot.png"

func TestScreenshotOfTheStatusPageIsSmall(t *testing.T) {
	if *update {
		takeScreenshot(t)
	}
	info, err := os.Stat(screenshotFile)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 200<<10 {
		t.Errorf("it has %d bytes", info.Size())
	}
}

// takeScreenshot makes the activity of a few seconds look like that of an hour.
func takeScreenshot(t *testing.T) {
	t.Helper()
	b := startBrowser(t)
	p := startPaged(t)
	p.live()
	for i := range 400 {
		path := "team/api/manifests/v1.8.2"
		if i%4 == 0 {
			path = "platform/base/blobs/" + p.base.Blobs[0].Digest.String()
		}
		if _, err := p.get(p.ecr.Host(), path, "containerd/2.1.4"); err != nil {
			t.Fatal(err)
		}
	}
	past := httptest.NewServer(aged{p.admin.Config.Handler, p.daemon.proxy.Traffic(), p.daemon.store.Activity().Fetched})
	defer past.Close()
	defer p.quit()
	b.size(1180, 1180, "light")
	b.do(chromedp.Navigate(past.URL + "/"))
	_, let := p.slowly("team/etl", 5<<20, "containerd/2.1.4", "buildkit/0.25")
	defer let()
	b.await(`document.querySelector("#fills progress")?.value > 2000000`)
	if err := os.WriteFile(screenshotFile, b.screenshot(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// aged is an admin handler that shows its activity as that of a day.
type aged struct {
	http.Handler
	done    proxy.Traffic
	fetched int64
}

// ServeHTTP replaces the times in the events.
func (a aged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.Handler.ServeHTTP(agedWriter{w, a.done, a.fetched}, r)
}

type agedWriter struct {
	http.ResponseWriter
	done    proxy.Traffic
	fetched int64
}

func (w agedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w agedWriter) Write(event []byte) (int, error) {
	name, _, _ := bytes.Cut(event, []byte("\n"))
	switch string(name) {
	case "event: about":
		_, err := fmt.Fprintf(w.ResponseWriter, "%s\ndata: {\"name\":\"ip-10-0-12-34\",\"version\":\"v1.0.0\",\"started\":%q}\n\n",
			name, time.Now().Add(-27*time.Hour).Format(time.RFC3339))
		return len(event), err
	case "event: history":
		data, err := json.Marshal(w.history())
		if err == nil {
			_, err = fmt.Fprintf(w.ResponseWriter, "%s\ndata: %s\n\n", name, data)
		}
		return len(event), err
	case "event: sample": // other events have the present
		return len(event), nil
	}
	return w.ResponseWriter.Write(event)
}

// history spreads the activity over an hour: misses come early and in bursts, hits increase.
func (w agedWriter) history() admin.History {
	var h admin.History
	const samples = 360
	var hits, misses, hitSum, missSum float64
	rates := func(i int) (hit, miss float64) {
		x := float64(i) / samples
		hit = 1 + 2*x + math.Sin(9*x) + 0.6*math.Sin(31*x)
		return hit, 0.05 + math.Exp(-9*x) + max(0, math.Sin(13*x)-0.9)
	}
	for i := range samples {
		hit, miss := rates(i)
		hitSum, missSum = hitSum+hit, missSum+miss
	}
	part := func(n int64, of float64) int64 { return int64(float64(n) * of) }
	for i := range samples {
		hit, miss := rates(i)
		hits, misses = hits+hit/hitSum, misses+miss/missSum
		fetched := part(w.fetched, misses)
		h.Hour = append(h.Hour, admin.Sample{
			At:       time.Now().Unix() - int64(samples-i)*10,
			Requests: proxy.Requests{Hit: part(w.done.Requests.Hit, hits), Miss: part(w.done.Requests.Miss, misses)},
			Served:   part(w.done.Served-w.fetched, hits) + fetched,
			Fetched:  fetched,
		})
	}
	h.Day = h.Hour[:1]
	return h
}
