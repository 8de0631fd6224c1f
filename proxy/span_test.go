package proxy

import (
	"net/http"
	"testing"
)

func TestFirstSpanIsTheFirstRangeOfARequest(t *testing.T) {
	const size = 1000
	for header, want := range map[string][2]int64{
		"":                            {0, size},
		"items=0-1":                   {0, size},
		"bytes=0-":                    {0, size},
		"bytes=10-19":                 {10, 10},
		"bytes=10-":                   {10, 990},
		"bytes=-10":                   {990, 10},
		"bytes=-5000":                 {0, size},
		"bytes=990-5000":              {990, 10},
		"bytes= 10-19 , 500-599":      {10, 10},
		"bytes=1000-":                 {0, 0},
		"bytes=20-10":                 {0, 0},
		"bytes=-0":                    {0, 0},
		"bytes=x":                     {0, 0},
		"bytes=":                      {0, 0},
		"bytes=99999999999999999999-": {0, 0},
	} {
		r := &http.Request{Header: http.Header{}}
		if header != "" {
			r.Header.Set("Range", header)
		}
		if off, n := firstSpan(r, size); off != want[0] || n != want[1] {
			t.Errorf("%q: %d bytes from %d on, want %d from %d on", header, n, off, want[1], want[0])
		}
	}
}
