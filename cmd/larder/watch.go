package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/proxy/admin"
)

// sample is the daemon's activity at one time.
type sample struct {
	At time.Time `json:"time"`
	admin.Activity
}

// watch shows the daemon's activity every interval until the command is
// interrupted: it redraws a terminal, else it prints a line each time. A daemon that answered
// once is waited for when it restarts.
func watch(p *invocation, client *client, interval time.Duration, asJSON bool) error {
	screen := screen{out: p.stdout}
	screen.width, screen.height = terminalSize(p.stdout)
	show := func(now, before sample) (err error) {
		switch {
		case asJSON:
			err = json.NewEncoder(p.stdout).Encode(now)
		case screen.width > 0:
			err = screen.draw(now.tables(before))
		case !before.At.IsZero(): // a line needs two samples
			_, err = fmt.Fprintln(p.stdout, now.line(before))
		}
		return err
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var before sample
	waiting := false
	for {
		now := sample{At: time.Now()}
		err := client.do(p.ctx, http.MethodGet, "activity", nil, &now.Activity)
		switch {
		case p.ctx.Err() != nil:
			return nil
		case err != nil && before.At.IsZero():
			return err
		case err == nil:
			if err := show(now, before); err != nil {
				return err
			}
			before, waiting = now, false
		case !waiting:
			waiting, screen.lines = true, 0
			fmt.Fprintln(p.stderr, "the daemon does not answer; waiting for it")
		}
		select {
		case <-p.ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// perSecond is how fast a sum grew between two samples; 0 without a first one.
func (s sample) perSecond(before sample, sum func(admin.Activity) int64) float64 {
	seconds := s.At.Sub(before.At).Seconds()
	if before.At.IsZero() || seconds <= 0 {
		return 0
	}
	return max(0, float64(sum(s.Activity)-sum(before.Activity))/seconds) // below 0 if the daemon was restarted
}

func (s sample) rate(before sample, sum func(admin.Activity) int64) string {
	return fmt.Sprintf("%.1f/s", s.perSecond(before, sum))
}

func (s sample) speed(before sample, sum func(admin.Activity) int64) string {
	return format.Size(int64(s.perSecond(before, sum))) + "/s"
}

func hits(a admin.Activity) int64     { return a.Requests.Hit }
func misses(a admin.Activity) int64   { return a.Requests.Miss }
func stale(a admin.Activity) int64    { return a.Requests.Stale }
func bypasses(a admin.Activity) int64 { return a.Requests.Bypass }
func failures(a admin.Activity) int64 { return a.Requests.Failed }
func served(a admin.Activity) int64   { return a.Served }
func fetched(a admin.Activity) int64  { return a.Fetched + a.Passed }
func scrubbed(a admin.Activity) int64 { return a.Scrubbed }

func evictions(a admin.Activity) (n int64) {
	for _, times := range a.Evictions {
		n += times
	}
	return n
}

// line is for a pipe: each figure has its name.
func (s sample) line(before sample) string {
	line := fmt.Sprintf("%s  size %s  hits %s  misses %s  stale %s  passed %s  failed %s  served %s  fetched %s  fills %d  evictions %s",
		s.At.Format(time.TimeOnly), format.Size(s.Bytes), s.rate(before, hits), s.rate(before, misses), s.rate(before, stale),
		s.rate(before, bypasses), s.rate(before, failures), s.speed(before, served), s.speed(before, fetched), s.Fills,
		s.rate(before, evictions))
	if s.Degraded != "" {
		line += "  degraded: " + s.Degraded
	}
	return line
}

// tables are for a terminal: the present, and the sums since the daemon was started.
func (s sample) tables(before sample) []*table {
	t := new(table)
	t.add("size", fill(s.Bytes, s.MaxSize))
	t.add("free on disk", format.Size(s.Free))
	t.add("active downloads", fmt.Sprint(s.Fills))
	t.add("requests", fmt.Sprintf("%s hits, %s misses, %s stale, %s passed through, %s failed", s.rate(before, hits),
		s.rate(before, misses), s.rate(before, stale), s.rate(before, bypasses), s.rate(before, failures)))
	t.add("served", s.speed(before, served))
	t.add("fetched", s.speed(before, fetched))
	t.add("evictions", s.rate(before, evictions))
	t.add("checked", s.speed(before, scrubbed))
	return append(append([]*table{t}, stateTables(s.Activity)...), activityTable(s.Activity))
}

// screen draws over what it drew before. It leaves out lines that do not fit.
type screen struct {
	out           io.Writer
	width, height int
	lines         int // of the last drawing
}

func (s *screen) draw(tables []*table) error {
	var text strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", s.lines) // cursor up
	}
	text.WriteString("\x1b[J") // erase below
	var body strings.Builder
	if err := writeTables(&body, tables); err != nil {
		return err
	}
	s.lines = 0
	for line := range strings.Lines(body.String()) {
		if s.lines == s.height-1 { // the last line is the cursor's
			break
		}
		text.WriteString(cutBack(strings.TrimSuffix(line, "\n"), s.width-1) + "\n") // a wrapped line would count twice on the way up
		s.lines++
	}
	_, err := io.WriteString(s.out, text.String())
	return err
}
