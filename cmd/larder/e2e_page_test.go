package main

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// An open page must not delay the end of a daemon.
func TestStatusPageEndsWithTheDaemon(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	client := &http.Client{Transport: transport(t)}
	page, err := client.Get("http://" + s.admin + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	html, err := io.ReadAll(page.Body)
	if err != nil || page.StatusCode != http.StatusOK || !strings.Contains(string(html), "<title>Larder</title>") {
		t.Errorf("%s, %v: %s", page.Status, err, html)
	}
	events, err := client.Get("http://" + s.admin + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.larder.stop(syscall.SIGTERM) }()
	told, err := io.ReadAll(events.Body)
	if err != nil {
		t.Errorf("the events were cut rather than ended: %v", err)
	}
	if want := `"version":"` + testVersion + `"`; !strings.Contains(string(told), want) {
		t.Errorf("%s is not in the events: %s", want, told)
	}
	if err := <-ended; err != nil {
		t.Errorf("larder was told to end: %v", err)
	}
}
