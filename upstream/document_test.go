package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream"
)

func TestLargeDocumentsAreReadOnceTheyAreAdmitted(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var size int
		var sized string
		if _, err := fmt.Sscanf(r.URL.Query().Get("last"), "%d-%s", &size, &sized); err != nil {
			t.Error(err)
		}
		if sized == "sized" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		_, _ = w.Write([]byte(strings.Repeat("x", size))) // the client may leave
	}))
	defer server.Close()
	client := upstream.NewClient(upstream.Options{Lookup: func(host string) (upstream.Config, bool) {
		return upstream.Config{Host: host, Endpoint: server.URL, Timeout: time.Minute}, true
	}})
	defer client.Close()
	registry, err := client.Registry("registry.test")
	if err != nil {
		t.Fatal(err)
	}
	const usual, most = 4 << 20, 32 << 20
	full := errors.New("no memory")
	for _, test := range []struct {
		document string
		size     int
		admitted []int64
		refuse   bool
		ok       bool
	}{
		{"small", 64 << 10, nil, true, true},
		{"sized", 64<<10 + 1, []int64{64<<10 + 1}, false, true},
		{"sized", usual + 1, []int64{usual + 1}, false, true},
		{"sized", most + 1, nil, false, false},
		{"sized", 1 << 20, []int64{1 << 20}, true, false},
		{"chunked", 100, nil, true, true},
		{"chunked", 1 << 20, []int64{usual}, false, true},
		{"chunked", usual, []int64{usual}, false, true},
		{"chunked", usual + 1, []int64{usual, most}, false, true},
		{"chunked", most + 1, []int64{usual, most}, false, false},
		{"chunked", 1 << 20, []int64{usual}, true, false},
	} {
		sized := test.document
		if sized == "small" {
			sized = "sized"
		}
		var admitted []int64
		ctx := upstream.WithAdmission(t.Context(), func(_ context.Context, size int64) error {
			admitted = append(admitted, size)
			if test.refuse {
				return full
			}
			return nil
		})
		_, body, err := registry.List(ctx, "app", "tags/list", map[string][]string{"last": {fmt.Sprintf("%d-%s", test.size, sized)}})
		if ok := err == nil && len(body) == test.size; ok != test.ok || test.refuse && !test.ok && !errors.Is(err, full) {
			t.Errorf("%s, %d bytes: got %d, %v", test.document, test.size, len(body), err)
		}
		if !slices.Equal(admitted, test.admitted) {
			t.Errorf("%s, %d bytes: admitted %v, want %v", test.document, test.size, admitted, test.admitted)
		}
	}
}
