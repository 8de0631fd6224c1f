package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin"
	"github.com/larder-registry/larder/upstream"
)

// stateTables show the running fills and the state of the upstreams, as the status
// page does. Without fills, or without upstreams, there is no such table.
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
	return all
}

func progressOf(f proxy.Fill) string {
	if f.Size == 0 {
		return size(f.Have)
	}
	return fmt.Sprintf("%s of %s (%.0f%%)", size(f.Have), size(f.Size), 100*float64(f.Have)/float64(f.Size))
}

func stateOf(u upstream.Status) string {
	text := "answers"
	switch {
	case u.LastErrorAt.After(u.LastAnswer):
		text = "failing"
	case u.LastAnswer.IsZero():
		text = "not asked yet"
	}
	if u.Throttled {
		text += ", throttled"
	}
	return text
}

func tokenOf(u upstream.Status) string {
	text := nothing
	if !u.TokenExpires.IsZero() {
		text = "expired"
		if time.Until(u.TokenExpires) > 0 {
			text = "good for " + remaining(u.TokenExpires)
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
