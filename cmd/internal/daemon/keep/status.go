package keep

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
)

// State is the state of an image that is kept.
type State string

const (
	// Unknown says that it was not looked at yet.
	Unknown State = "unknown"
	// Whole says that what the upstream named when it answered last is here for its platforms.
	Whole State = "whole"
	// Old says that the upstream has another one, which is not whole here yet. An older one is
	// whole and stays.
	Old State = "old"
	// Gone says that the upstream does not have the image any more. The one that is here stays.
	Gone State = "gone"
	// Missing says that no version is whole here.
	Missing State = "missing"
	// TooLarge says that the new one does not fit beside the rest of what is pinned. An older
	// one that is whole stays.
	TooLarge State = "too_large"
)

func states() []State { return []State{Unknown, Whole, Old, Gone, Missing, TooLarge} }

// Status is what is known of an image that is kept.
type Status struct {
	Image string `json:"image"` // its full name
	State State  `json:"state"`
	// Digest is that of the version that is whole here; Next is that of a newer one that is
	// not. Both may be empty.
	Digest digest.Digest `json:"digest,omitempty"`
	Next   digest.Digest `json:"next,omitempty"`
	// Done and Total are the bytes of what is being fetched; 0 if nothing is.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Checked is when the upstream was last asked with success, if Digest is set.
	Checked time.Time `json:"checked,omitzero"`
	Error   string    `json:"error,omitempty"` // of the latest attempt
}

// Status returns the status of an image, by its full name. It does not block.
func (k *Keeper) Status(image string) Status {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if i := k.images[image]; i != nil {
		return i.status
	}
	return Status{}
}

// All returns the status of all images that are kept, sorted by name.
func (k *Keeper) All() []Status {
	all := []Status{}
	meters := make(map[string]*bring.Meter)
	k.mu.RLock()
	for _, i := range k.images {
		all = append(all, i.status)
		meters[i.status.Image] = i.meter
	}
	k.mu.RUnlock()
	for n := range all {
		if meter := meters[all[n].Image]; meter != nil {
			p := k.bringer.Progress(meter)
			all[n].Done, all[n].Total = p.Done, p.Total
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Image, b.Image) })
	return all
}

// observe registers the metric.
func (k *Keeper) observe(provider metric.MeterProvider) error {
	meter := provider.Meter("github.com/larder-registry/larder")
	_, err := meter.Int64ObservableGauge("larder.keep.images", metric.WithUnit("{image}"),
		metric.WithDescription("Images that the configuration keeps here, by their state."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			count := make(map[State]int64)
			k.mu.RLock()
			groups := len(k.groups)
			for _, i := range k.images {
				count[i.status.State]++
			}
			k.mu.RUnlock()
			if groups == 0 {
				return nil
			}
			for _, state := range states() {
				o.Observe(count[state], metric.WithAttributes(attribute.String("state", string(state))))
			}
			return nil
		}))
	return err
}
