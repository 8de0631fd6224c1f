package proxy_test

import (
	"strings"
	"testing"
	"unicode"
)

// What clients name is shown on terminals, on the page, and as labels of metrics.
func TestStrangeRegistriesAreRefusedAndShownPlainly(t *testing.T) {
	r := newRig(t, settings{fallback: new("")})
	for _, path := range []string{
		"/v2/team/app/manifests/v1?ns=%1b%5b2J.example", "/v2/team/app/manifests/v1?ns=a%0ab.example", "/v2/team/app/manifests/v1?ns=%00",
		"/v2/team/app/manifests/v1?ns=user:secret@quay.io", "/v2/team/app/manifests/v1?ns=https://quay.io", "/v2/team/app/manifests/v1?ns=quay.io/../x",
		"/v2/team/app/manifests/v1?ns=%e2%80%aequay.io", "/v2/team/app/manifests/v1?ns=%3cscript%3e", "/v2/team/app/manifests/v1?ns=*",
		"/v2/team/app/manifests/v1?ns=" + strings.Repeat("a", 4000) + ".example", "/v2/team/app/manifests/v1?ns=a.example&ns=b.example",
		"/v2/team/app/manifests/v1?ns=other", "/v2/team/app/manifests/v1?ns=[::1", "/v2/team/app/manifests/v1?ns=quay.io:99999",
	} {
		a := r.get(path)
		if a.StatusCode < 400 || a.StatusCode >= 500 || len(a.body) > 2000 || strings.Contains(string(a.body), "secret") {
			t.Errorf("%.80s: %d %.300s", path, a.StatusCode, a.body)
		}
	}
	r.server.Close() // a request is counted when it is over
	for _, refusal := range r.proxy.Refusals() {
		shown := refusal.Registry + refusal.Text
		if len(shown) > 1000 || strings.Contains(shown, "secret") || strings.ContainsFunc(shown, func(c rune) bool { return !unicode.IsPrint(c) || c > unicode.MaxASCII }) {
			t.Errorf("%.300q", shown)
		}
	}
}
