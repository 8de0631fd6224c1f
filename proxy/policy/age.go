package policy

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// ageCondition is that an image was pushed, or was first seen here, long enough ago.
type ageCondition struct {
	policy *Policy
	least  time.Duration
	seen   time.Time
}

// Evaluate is for [Condition]. The registry is not asked if the image was seen long enough ago.
func (c ageCondition) Evaluate(ctx context.Context, image Image) (Answer, error) {
	now := c.policy.now()
	since, how := c.seen, "first seen here"
	if now.Sub(since) < c.least && c.policy.opts.Pushed != nil {
		at, ok, err := c.policy.opts.Pushed(ctx, image)
		if err != nil {
			return Answer{}, fmt.Errorf("ask when it was pushed: %w", err)
		}
		if ok && at.Before(since) {
			since, how = at, "pushed"
		}
	}
	old := since.Add(c.least)
	when := since.UTC().Format(time.RFC3339)
	if now.Before(old) {
		return Answer{
			Reason: fmt.Sprintf("it was %s at %s and must be %s old: pull it after %s", how, when, hours(c.least), old.UTC().Format(time.RFC3339)),
			Until:  old,
			Basis:  when,
		}, nil
	}
	return Answer{Holds: true, Reason: fmt.Sprintf("it was %s at %s", how, when), Basis: when}, nil
}

// hours returns a duration as the configuration has it: 72h rather than 72h0m0s.
func hours(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if short, ok := strings.CutSuffix(text, zero); ok && strings.HasSuffix(short, "m") || strings.HasSuffix(short, "h") {
			text = short
		}
	}
	return text
}
