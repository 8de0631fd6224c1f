package proxy

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Runtime is a kind of client, and when one of them last asked for content.
type Runtime struct {
	// Name is "containerd", "docker", "podman", "cri-o", "buildkit", or "other".
	Name string    `json:"name"`
	Last time.Time `json:"last"`
}

// products are the first products in the User-Agent of container runtimes, and the names of
// these runtimes: containers/image says "containers" in podman and Buildah, and older ones
// of podman "libpod".
var products = [...]struct{ prefix, name string }{
	{"containerd/", "containerd"},
	{"docker/", "docker"},
	{"containers/", "podman"},
	{"libpod/", "podman"},
	{"Buildah/", "podman"},
	{"cri-o/", "cri-o"},
	{"buildkit/", "buildkit"},
	{"", "other"},
}

// runtimes knows when each kind of client last asked. It is safe for concurrent use.
type runtimes struct {
	last [len(products)]atomic.Int64 // Unix nanoseconds, 0 for never, by the index in products
}

// note notes a request at a time. It does not allocate.
func (rs *runtimes) note(agent string, at time.Time) {
	for i := range products {
		if strings.HasPrefix(agent, products[i].prefix) {
			rs.last[i].Store(at.UnixNano())
			return
		}
	}
}

// measure adds the metric of the latest requests to a meter.
func (rs *runtimes) measure(meter metric.Meter) error {
	_, err := meter.Float64ObservableGauge("larder.runtime.last_request.timestamp", metric.WithUnit("s"),
		metric.WithDescription("When a container runtime last asked for content, in seconds since 1970, by runtime."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			for _, one := range rs.list() {
				o.Observe(float64(one.Last.UnixMilli())/1000, metric.WithAttributes(attribute.String("runtime", one.Name)))
			}
			return nil
		}))
	return err
}

// list returns the runtimes that have asked, in the order of products.
func (rs *runtimes) list() []Runtime {
	list := []Runtime{} // [] rather than null
	for i := range products {
		nanos := rs.last[i].Load()
		if nanos == 0 {
			continue
		}
		one := Runtime{Name: products[i].name, Last: time.Unix(0, nanos)}
		if n := len(list); n > 0 && list[n-1].Name == one.Name {
			if one.Last.After(list[n-1].Last) {
				list[n-1] = one
			}
			continue
		}
		list = append(list, one)
	}
	return list
}
