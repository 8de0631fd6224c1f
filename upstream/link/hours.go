package link

import (
	"fmt"
	"time"
)

// Hours are a part of each day, as the clock on the wall shows it: an hour that is shown twice
// in a night counts twice. They may include midnight. The zero value is the whole day.
type Hours struct {
	// From and To are minutes after midnight, From included. They differ, unless both
	// are 0.
	From, To int
}

// String returns the hours in the form of the configuration: 22:00-05:00.
func (h Hours) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
}

func minuteOf(t time.Time) int { return t.Hour()*60 + t.Minute() }

func (h Hours) always() bool { return h == Hours{} }

// contains reports whether a time, in its own location, is within the hours.
func (h Hours) contains(t time.Time) bool {
	minute := minuteOf(t)
	switch {
	case h.always():
		return true
	case h.From < h.To:
		return h.From <= minute && minute < h.To
	}
	return h.From <= minute || minute < h.To
}

// next returns when the clock on the wall next shows a minute of the day, after t, or skips it.
func next(t time.Time, minute int) time.Time {
	for year, month, day := t.Date(); ; day++ {
		for _, at := range moments(year, month, day, minute, t.Location()) {
			if at.After(t) {
				return at
			}
		}
	}
}

// moments returns when the clock on the wall shows a minute of a day: once as a rule, twice if
// it is set back past that minute, and if it is set forward past it, the moment of that.
func moments(year int, month time.Month, day, minute int, loc *time.Location) []time.Time {
	shown := time.Date(year, month, day, 0, minute, 0, 0, time.UTC)
	at := func(zone time.Time) time.Time {
		_, offset := zone.In(loc).Zone()
		return shown.Add(-time.Duration(offset) * time.Second).In(loc)
	}
	first, second := at(shown.Add(-24*time.Hour)), at(shown.Add(24*time.Hour))
	var all []time.Time
	for _, t := range []time.Time{first, second} {
		if minuteOf(t) == minute && (len(all) == 0 || t.After(all[0])) {
			all = append(all, t)
		}
	}
	if all == nil {
		set, _ := first.ZoneBounds()
		all = append(all, set)
	}
	return all
}

// ClosedError is the error of what no client waits for outside of the hours.
type ClosedError struct {
	Until time.Time // when the hours begin
}

func (e *ClosedError) Error() string {
	return "what no client waits for may not be fetched before " + e.Until.Format("15:04") + " (link.background.hours)"
}

// Postponed says that it may be fetched another time.
func (*ClosedError) Postponed() bool { return true }

// RetryAfter returns how long it is until the hours begin.
func (e *ClosedError) RetryAfter() time.Duration { return max(time.Until(e.Until), 0) }
