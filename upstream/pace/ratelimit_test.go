package pace_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

func TestRateLimitIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for v, want := range map[string]pace.RateLimit{
			"100;w=21600":      {Limit: 100, Window: 6 * time.Hour},
			"100":              {Limit: 100},
			" 0 ; w=60 ; x=\"": {Limit: 0, Window: time.Minute},
			"5;w=99999999999":  {Limit: 5},
		} {
			want.Remaining, want.Source, want.At = 3, "192.0.2.7", time.Now()
			got, ok := pace.ParseRateLimit(http.Header{
				"Ratelimit-Limit": {v}, "Ratelimit-Remaining": {"3;w=21600"}, "Docker-Ratelimit-Source": {"192.0.2.7"},
			})
			if !ok || got != want {
				t.Errorf("%q: %+v, %t; want %+v", v, got, ok, want)
			}
		}
		for _, v := range []string{"", "-1", "many", "w=60", ";"} {
			for _, h := range []http.Header{
				{"Ratelimit-Limit": {v}, "Ratelimit-Remaining": {"3"}},
				{"Ratelimit-Limit": {"3"}, "Ratelimit-Remaining": {v}},
			} {
				if got, ok := pace.ParseRateLimit(h); ok {
					t.Errorf("%v reads as %+v", h, got)
				}
			}
		}
	})
}

func TestExhaustedQuotaIsOneOfALongWindow(t *testing.T) {
	for v, want := range map[string]bool{
		"0;w=21600": true, " 0 ;w=100": true, "0; w=21600": true,
		"0;w=99": false, "0;w=5;x": false, "1;w=21600": false, "0": false, "": false,
	} {
		if got := pace.Exhausted(http.Header{"Ratelimit-Remaining": {v}}); got != want {
			t.Errorf("%q: %t, want %t", v, got, want)
		}
	}
}
