package main

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// refusalTime is how long a client may wait for a refusal, on which it pulls from elsewhere.
const refusalTime = 2 * time.Second

// requireRefusal fails the test unless a GET is answered in time with this error of the distribution specification.
func requireRefusal(t *testing.T, url, code string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: transport(t), Timeout: refusalTime}
	resp, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Errorf("%s: %s, and reading its body: %v", url, resp.Status, err)
		return
	}
	if len(answer.Errors) != 1 || answer.Errors[0].Code != code {
		t.Errorf("%s: %s with the errors %v, want %s", url, resp.Status, answer.Errors, code)
	}
}
