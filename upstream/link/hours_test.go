package link

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func TestHoursAreThoseOfTheClockOnTheWall(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	on := func(day string) time.Time {
		at, err := time.ParseInLocation("2006-01-02 15:04 -0700", day, newYork)
		if err != nil {
			t.Fatal(err)
		}
		return at.In(newYork)
	}
	night, early, day := Hours{22 * 60, 5 * 60}, Hours{2*60 + 30, 5 * 60}, Hours{9 * 60, 17 * 60}
	for _, c := range []struct {
		hours    Hours
		at       string
		open     bool
		from, to string // the next ones
	}{
		{night, "2026-01-10 21:59 -0500", false, "2026-01-10 22:00 -0500", "2026-01-11 05:00 -0500"},
		{night, "2026-01-10 22:00 -0500", true, "2026-01-11 22:00 -0500", "2026-01-11 05:00 -0500"},
		{night, "2026-01-11 00:00 -0500", true, "2026-01-11 22:00 -0500", "2026-01-11 05:00 -0500"},
		{night, "2026-01-11 05:00 -0500", false, "2026-01-11 22:00 -0500", "2026-01-12 05:00 -0500"},
		{day, "2026-01-10 12:00 -0500", true, "2026-01-11 09:00 -0500", "2026-01-10 17:00 -0500"},
		{day, "2026-01-10 17:00 -0500", false, "2026-01-11 09:00 -0500", "2026-01-11 17:00 -0500"},
		// The clock is set forward from 2 to 3 on 2026-03-08: the night has six hours.
		{night, "2026-03-07 22:00 -0500", true, "2026-03-08 22:00 -0400", "2026-03-08 05:00 -0400"},
		{early, "2026-03-08 01:59 -0500", false, "2026-03-08 03:00 -0400", "2026-03-08 05:00 -0400"},
		{early, "2026-03-08 03:00 -0400", true, "2026-03-09 02:30 -0400", "2026-03-08 05:00 -0400"},
		// It is set back from 2 to 1 on 2026-11-01: the night has eight hours.
		{night, "2026-10-31 22:00 -0400", true, "2026-11-01 22:00 -0500", "2026-11-01 05:00 -0500"},
		{Hours{90, 5 * 60}, "2026-11-01 01:29 -0400", false, "2026-11-01 01:30 -0400", "2026-11-01 05:00 -0500"},
		{Hours{90, 5 * 60}, "2026-11-01 01:29 -0500", false, "2026-11-01 01:30 -0500", "2026-11-01 05:00 -0500"},
		{Hours{90, 5 * 60}, "2026-11-01 01:31 -0400", true, "2026-11-01 01:30 -0500", "2026-11-01 05:00 -0500"},
	} {
		at := on(c.at)
		if open := c.hours.contains(at); open != c.open {
			t.Errorf("%v at %s: open is %t", c.hours, c.at, open)
		}
		if from := next(at, c.hours.From); !from.Equal(on(c.from)) {
			t.Errorf("%v at %s: it next begins at %v, want %s", c.hours, c.at, from, c.from)
		}
		if to := next(at, c.hours.To); !to.Equal(on(c.to)) {
			t.Errorf("%v at %s: it next ends at %v, want %s", c.hours, c.at, to, c.to)
		}
	}
	if always := (Hours{}); !always.contains(on("2026-01-10 12:00 -0500")) {
		t.Error("no hours are not the whole day")
	}
}
