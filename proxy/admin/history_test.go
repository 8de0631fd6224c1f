package admin

import (
	"testing"
	"time"
)

// White-box: a day of samples takes a day through the face.

func TestHistoryIsDenseForAnHourAndCoarseForADay(t *testing.T) {
	var h history
	const end = int64(25 * time.Hour / time.Second)
	for at := int64(0); at <= end; at += int64(sampleEvery / time.Second) {
		h.add(Sample{At: at, Served: at})
	}
	for name, test := range map[string]struct {
		samples     []Sample
		every, span time.Duration
	}{
		"hour": {h.all().Hour, sampleEvery, time.Hour},
		"day":  {h.all().Day, coarseEvery, 24 * time.Hour},
	} {
		first, last := test.samples[0], test.samples[len(test.samples)-1]
		if last.At != end || last.At-first.At != int64(test.span/time.Second) {
			t.Errorf("%s: from %d to %d", name, first.At, last.At)
		}
		for i, s := range test.samples[1:] {
			if s.At-test.samples[i].At != int64(test.every/time.Second) || s.Served != s.At {
				t.Errorf("%s: %+v comes after %+v", name, s, test.samples[i])
			}
		}
	}
}
