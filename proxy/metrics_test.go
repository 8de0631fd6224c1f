package proxy

// White-box: hundreds of repositories are easier to count than to serve.

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/larder-registry/larder/cache"
)

// counted returns the requests by the values of an attribute.
func counted(t *testing.T, reader sdkmetric.Reader, key attribute.Key) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "larder.requests" {
				for _, point := range sum.DataPoints {
					if value, ok := point.Attributes.Value(key); ok {
						values[value.String()] += point.Value
					}
				}
			}
		}
	}
	return values
}

func countIn(m *metrics, repository string, status int) {
	w := &recorder{ResponseWriter: httptest.NewRecorder(), status: status}
	m.count(w, target{route: route{kind: kindBlob}, repo: cache.Repository{Upstream: "registry.test", Name: repository}}, false)
}

// Clients could make up names, and each would be a time series in every system that keeps
// the metrics.
func TestRepositoriesInMetricsAreBounded(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	m, err := newMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), true, new(runtimes))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 * maxRepositories {
		countIn(m, fmt.Sprintf("made/up-%d", i), http.StatusNotFound)
	}
	for i := range 2 * maxRepositories {
		countIn(m, fmt.Sprintf("team/app-%d", i), http.StatusOK)
		countIn(m, fmt.Sprintf("team/app-%d", i), http.StatusNotFound) // a served repository stays, though requests fail
	}
	got := counted(t, reader, "repository")
	if len(got) != maxRepositories+1 || got["team/app-0"] != 2 || got["other"] != 10*maxRepositories+2*maxRepositories {
		t.Errorf("%d repositories, %d requests for the others, %d for the first one", len(got), got["other"], got["team/app-0"])
	}
}

func TestRepositoriesAreInMetricsOnlyOnRequest(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	m, err := newMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), false, new(runtimes))
	if err != nil {
		t.Fatal(err)
	}
	countIn(m, "team/app", http.StatusOK)
	countIn(m, "team/app", 0) // the client left
	if got := counted(t, reader, "repository"); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := counted(t, reader, "status"); got["200"] != 1 || got["499"] != 1 {
		t.Errorf("by status: %v", got)
	}
}
