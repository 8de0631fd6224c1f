package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/link"
)

// stateTables show the running fills, the state of the upstreams and the registries that are
// refused, as the status page does. A table without rows is left out.
func stateTables(st admin.Activity) []*table {
	var all []*table
	if len(st.FillsRunning) > 0 {
		t := new(table)
		t.add("FETCHING", "PROGRESS", "CLIENTS", "FOR")
		for _, f := range st.FillsRunning {
			t.add(shortDigest(f.Digest), progressOf(f), fmt.Sprint(f.Waiting), strings.Join(f.Repositories, ", "))
		}
		all = append(all, t)
	}
	if len(st.Upstreams) > 0 {
		t := new(table)
		t.add("UPSTREAM", "STATE", "TOKEN", "LAST ERROR")
		for _, u := range st.Upstreams {
			t.add(u.Host, stateOf(u), tokenOf(u), lastErrorOf(u))
		}
		all = append(all, t)
	}
	if len(st.Refused) > 0 {
		t := new(table)
		t.add("REFUSED", "REQUESTS", "LAST", "WHY")
		for _, r := range st.Refused {
			t.add(cmp.Or(r.Registry, nothing), fmt.Sprint(r.Requests), age(r.Last), r.Text)
		}
		all = append(all, t)
	}
	return all
}

// linkOf says how the line is shared, or "" if it has no bounds.
func linkOf(l *link.Status) string {
	if l == nil || l.Rules == "" {
		return ""
	}
	return fmt.Sprintf("%s; %s for clients, %s in the background, %d transfers wait", l.Rules, format.Size(l.Clients), format.Size(l.Unattended), l.Waiting)
}

// bucketOf says what went through the bucket, and why it fails.
func bucketOf(b bucket.Status) string {
	text := fmt.Sprintf("%s; %s taken", b.Bucket, format.Size(b.Taken))
	if b.Writes {
		text += fmt.Sprintf(", %s put in %d objects, %d wait", format.Size(b.Given), b.Put, b.Queued)
	}
	if b.Wrong > 0 {
		text += fmt.Sprintf(", %d objects wrong", b.Wrong)
	}
	if b.Reading != "" {
		text += "; reading fails: " + b.Reading
	}
	if b.Writing != "" {
		text += "; putting fails: " + b.Writing
	}
	return text
}

func progressOf(f proxy.Fill) string {
	if f.Size == 0 {
		return format.Size(f.Have)
	}
	return fmt.Sprintf("%s of %s (%.0f%%)", format.Size(f.Have), format.Size(f.Size), 100*float64(f.Have)/float64(f.Size))
}

func stateOf(u upstream.Status) string {
	text := "answers"
	switch {
	case u.Offline:
		return "offline"
	case u.LastErrorAt.After(u.LastAnswer):
		text = "failing"
	case u.LastAnswer.IsZero():
		text = "not asked yet"
	}
	if u.Throttled {
		text += ", throttled"
	}
	if u.PullsNotRecorded != "" {
		text += ", does not record pulls by " + u.PullsNotRecorded
	}
	return text
}

func tokenOf(u upstream.Status) string {
	text := nothing
	if !u.TokenExpires.IsZero() {
		text = "expired"
		if time.Until(u.TokenExpires) > 0 {
			text = "good for " + format.Remaining(u.TokenExpires)
		}
	}
	if !u.TokenObtained.IsZero() {
		text = fmt.Sprintf("from %s, %s", age(u.TokenObtained), text)
	}
	return text
}

// lastErrorOf is for the last column, since errors are long.
func lastErrorOf(u upstream.Status) string {
	var all []string
	if u.LastError != "" {
		all = append(all, age(u.LastErrorAt)+": "+u.LastError)
	}
	if u.TokenError != "" {
		all = append(all, "no newer token: "+u.TokenError)
	}
	return cmp.Or(strings.Join(all, "; "), nothing)
}
