package keep

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/upstream/pace"
)

// A failed attempt is repeated after firstRetry, then after pauses that double up to maxRetry:
// a link that is down for days is not tried every minute.
const (
	firstRetry = time.Minute
	maxRetry   = time.Hour
)

// follow keeps one image until ctx ends.
func (k *Keeper) follow(ctx context.Context, i *kept) {
	defer k.forget(i)
	select {
	case <-ctx.Done():
		return
	case <-k.store.Loaded():
	}
	pauses := pace.NewJitteredBackoff(firstRetry, maxRetry)
	for {
		pause := jitter(i.settings.every)
		err := k.check(ctx, i)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pauses.Reset()
		case cache.IsPostponed(err):
			k.note(i, err)
			pause = min(pause, pace.PauseAfter(maxRetry, err))
		default:
			k.note(i, err)
			pause = min(pause, pauses.NextBackOff())
		}
		select {
		case <-ctx.Done():
			return
		case <-i.wake:
			pauses.Reset()
		case <-time.After(pause):
		}
	}
}

// jitter returns a duration or up to a tenth less, so that nodes do not ask all at once.
func jitter(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/10+1)) }

// check asks what the image is now, and brings that.
func (k *Keeper) check(ctx context.Context, i *kept) error {
	old := k.look(i)
	if old != "" || i.image.Digest != "" { // also while the upstream must not be asked
		if err := k.store.Keep(i.repo, i.image.Reference()); err != nil {
			k.note(i, err)
		}
	}
	if err := k.postponed(i.image.Host); err != nil {
		return err
	}
	now, confirmed, err := k.bringer.Resolve(ctx, i.image)
	if err != nil {
		if isGone(err) {
			k.announce(i, "")
		}
		return err
	}
	if now != old {
		k.announce(i, now)
	}
	if err := k.bringer.FetchManifests(ctx, i.image, now); err != nil {
		return err
	}
	if now != old {
		if err := k.pin(i, now); err != nil {
			return err
		}
	}
	if err := k.fetch(ctx, i, now); err != nil {
		return err
	}
	if i.image.Digest == "" {
		k.setServesRecorded(i, true)
		if err := k.store.SetTag(i.repo, i.image.Tag, now, confirmed); err != nil {
			return err
		}
		k.endNext(i) // the tag is pinned
	}
	if now != old {
		k.log.Info("an image that is kept is whole", "image", i.image, "digest", now)
	}
	k.set(i, Status{State: Whole, Digest: now, Checked: confirmed})
	return nil
}

// look finds out what is here, and returns the digest of the image if that is whole, or "".
func (k *Keeper) look(i *kept) digest.Digest {
	d, checked, err := k.store.Resolve(i.repo, i.image.Reference())
	if err != nil || !k.bringer.IsWhole(i.image, d) {
		k.setServesRecorded(i, false) // clients need not wait for the new one
		k.lose(i)
		return ""
	}
	k.setServesRecorded(i, true)
	if now := k.Status(i.image.String()); now.State == Unknown || now.Digest != d {
		k.set(i, Status{State: Whole, Digest: d, Checked: checked})
	}
	return d
}

// pin pins a digest, now that its manifests are here: beside what the tag names if the image is
// kept by a tag.
func (k *Keeper) pin(i *kept, d digest.Digest) error {
	if i.image.Digest != "" {
		return k.store.Keep(i.repo, d.String())
	}
	return k.store.KeepNext(i.repo, i.image.Tag, d)
}

// forget lets go of an image that is not on its list any more.
func (k *Keeper) forget(i *kept) {
	k.mu.RLock()
	isKept := k.images[i.image.String()] != nil // perhaps in another way
	k.mu.RUnlock()
	if isKept {
		return
	}
	k.store.Release(i.repo, i.image.Reference())
	if i.image.Digest == "" {
		k.endNext(i)
	}
}

// endNext lets go of what the tag of an image was to name.
func (k *Keeper) endNext(i *kept) {
	if err := k.store.EndNext(i.repo, i.image.Tag); err != nil {
		k.log.Warn("an image that is not needed may be pinned after the next start, until its registry is asked", "image", i.image, "error", err)
	}
}

// fetch fetches what is missing, when its turn has come.
func (k *Keeper) fetch(ctx context.Context, i *kept, d digest.Digest) error {
	if k.bringer.IsWhole(i.image, d) && !i.image.Referrers {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case k.slots <- struct{}{}:
	}
	defer func() { <-k.slots }()
	meter := bring.NewMeter(i.image.String())
	k.measure(i, meter)
	defer k.measure(i, nil)
	return k.bringer.Fetch(ctx, i.image, d, meter).Err
}

// note records why an image is not what the upstream has, and logs that once.
func (k *Keeper) note(i *kept, err error) {
	k.mu.Lock()
	s := i.status
	known := cache.Reason(s.Error) == cache.Reason(err.Error())
	s.Error = err.Error()
	switch {
	case cache.IsPostponed(err): // nothing is known that was not before
		if s.State == TooLarge {
			s.Error = i.status.Error
		}
	case errors.Is(err, unix.ENOSPC):
		s.State = TooLarge
	case s.Digest == "":
		s.State = Missing
	case s.Next != "":
		s.State = Old
	case isGone(err):
		s.State = Gone
	}
	i.status = s
	k.mu.Unlock()
	if !known && !cache.IsPostponed(err) {
		k.log.Warn("an image that is kept could not be fetched; trying again later", "image", i.image, "state", s.State,
			"served", s.Digest, "error", err)
	}
}

// setServesRecorded sets whether clients get the tag as it is recorded.
func (k *Keeper) setServesRecorded(i *kept, whole bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i.servesRecorded = whole && i.image.Tag != "" && !i.settings.atOnce
}

// lose records that no version of an image is whole here. The error of the latest attempt, and
// that it was too large, stay until the next one ends.
func (k *Keeper) lose(i *kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i.status.Digest != "" || i.status.State == Unknown {
		i.status = Status{Image: i.status.Image, State: Missing}
	}
}

func (k *Keeper) set(i *kept, s Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Image = i.status.Image
	i.status = s
}

// announce records that the upstream names another image than the one that is whole here; "" says
// that it names none.
func (k *Keeper) announce(i *kept, next digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i.status.Next = next
	if i.status.Digest != "" && next != "" && i.status.State != TooLarge {
		i.status.State = Old
	}
}

// measure sets the meter of what is being fetched, or nil.
func (k *Keeper) measure(i *kept, meter *bring.Meter) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i.meter = meter
}
