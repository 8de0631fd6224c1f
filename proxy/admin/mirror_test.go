package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin"
)

func TestNodeWhoseRuntimeIgnoresLarderIsShown(t *testing.T) {
	r := newRig(t, cache.Options{}, admin.Options{})
	put := func(body string) int {
		w := httptest.NewRecorder()
		r.admin.API().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/api/v1/mirror", strings.NewReader(body)))
		return w.Code
	}
	latest := func() *admin.MirrorCheck {
		var activity admin.Activity
		if status := r.api(http.MethodGet, "activity", "", &activity); status != http.StatusOK {
			t.Fatalf("activity: %d", status)
		}
		return activity.Mirror
	}
	if check := latest(); check != nil {
		t.Errorf("before a check: %+v", check)
	}
	if status := put(`{"faults": [{"what": "containerd has no config_path", "advice": "write it"}]}`); status != http.StatusNoContent {
		t.Errorf("put: %d", status)
	}
	check := latest()
	if check == nil || check.At.IsZero() || len(check.Faults) != 1 || check.Faults[0] != (admin.MirrorFault{What: "containerd has no config_path", Advice: "write it"}) {
		t.Errorf("after a check with a fault: %+v", check)
	}
	if body := r.ask(http.MethodGet, "/readyz"); body.Code != http.StatusOK || body.Body.String() != "ok; installed, but not used: containerd has no config_path\n" {
		t.Errorf("/readyz: %d %q", body.Code, body.Body)
	}
	for _, bad := range []string{"", "{", `{"faults": 1}`, `{"faults": [{"what": "` + strings.Repeat("x", 70_000) + `"}]}`} {
		if status := put(bad); status != http.StatusBadRequest {
			t.Errorf("put %.20q: %d, want 400", bad, status)
		}
	}
	if check := latest(); check == nil || len(check.Faults) != 1 {
		t.Errorf("after bad checks: %+v", check)
	}
	put(`{}`)
	if check := latest(); check == nil || check.Faults == nil || len(check.Faults) != 0 {
		t.Errorf("after a check without faults: %+v", check)
	}
	if body := r.ask(http.MethodGet, "/readyz").Body.String(); body != "ok\n" {
		t.Errorf("/readyz: %q", body)
	}
}
