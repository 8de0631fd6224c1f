package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// MirrorCheck is whether this node's container runtime pulls through Larder. larder mirror finds it out, with
// the files that the runtime reads, and tells the daemon with PUT /api/v1/mirror.
type MirrorCheck struct {
	// At is when the daemon was told.
	At time.Time `json:"at"`
	// Faults are why the runtime does not ask Larder. It is empty if it does.
	Faults []MirrorFault `json:"faults"`
}

// MirrorFault is one reason why a node's runtime does not ask Larder.
type MirrorFault struct {
	What string `json:"what"`
	// Advice is what to do about it.
	Advice string `json:"advice,omitempty"`
}

const (
	maxMirrorCheck = 64 << 10 // bytes of PUT /api/v1/mirror
	maxFaults      = 100      // a node has one for each registry and some more
)

// errMirrorCheck is the error for a check that cannot be read.
var errMirrorCheck = errors.New("not the result of a check by larder mirror")

// mirror keeps the latest check of a node's runtime. It is safe for concurrent use.
type mirror struct{ checked atomic.Pointer[MirrorCheck] } // nil before the first one

// latest returns the latest check, or nil if there was none.
func (m *mirror) latest() *MirrorCheck { return m.checked.Load() }

// unused says why the node's runtime does not ask Larder, or "" if it does or if that is not known.
func (m *mirror) unused() string {
	check := m.latest()
	if check == nil || len(check.Faults) == 0 {
		return ""
	}
	return check.Faults[0].What
}

// put takes a check from larder mirror.
func (m *mirror) put(r *http.Request) (any, error) {
	var check MirrorCheck
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxMirrorCheck)).Decode(&check); err != nil {
		return nil, fmt.Errorf("%w: %w", errMirrorCheck, err)
	}
	if len(check.Faults) > maxFaults {
		check.Faults = check.Faults[:maxFaults]
	}
	if check.Faults == nil {
		check.Faults = []MirrorFault{} // [] rather than null
	}
	check.At = time.Now()
	m.checked.Store(&check)
	return nil, nil
}

// measure adds the metric of the check to a meter.
func (m *mirror) measure(meter metric.Meter) error {
	_, err := meter.Int64ObservableGauge("larder.mirror.effective",
		metric.WithDescription("1 if this node's container runtime pulls through Larder, 0 if not. There is none before a check."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			check := m.latest()
			switch {
			case check == nil:
			case len(check.Faults) == 0:
				o.Observe(1)
			default:
				o.Observe(0)
			}
			return nil
		}))
	return err
}
