package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/bucket"
)

func TestDoctorTellsWhatIsWrongWithTheBucket(t *testing.T) {
	at := bucket.Place{Bucket: "images", Prefix: "larder"}
	wrong := errors.New("access denied")
	for name, test := range map[string]struct {
		check  bucket.Check
		write  bool
		err    error
		status Status
		detail string
		advice string
	}{
		"all is well":     {bucket.Check{Place: at, Heeds: true}, true, nil, OK, "s3://images/larder/ can be read and written", ""},
		"a reader":        {bucket.Check{Place: at}, false, nil, OK, "s3://images/larder/ can be read\n", ""},
		"no credentials":  {bucket.Check{}, false, wrong, Failed, "access denied", "AWS configuration"},
		"not there":       {bucket.Check{Reached: wrong}, false, nil, Failed, "access denied", "shared.s3"},
		"not readable":    {bucket.Check{Read: wrong}, false, nil, Failed, "access denied", "bucket-read.json"},
		"not writable":    {bucket.Check{Written: wrong}, true, nil, Failed, "access denied", "bucket-write.json"},
		"no conditions":   {bucket.Check{Place: at}, true, nil, Warning, "ignores If-None-Match", "conditional"},
		"another time":    {bucket.Check{Place: at, Ahead: -2 * time.Minute}, false, nil, Warning, "-120 s", "NTP"},
		"a little behind": {bucket.Check{Place: at, Ahead: -10 * time.Second}, false, nil, OK, "without shared.key_file", ""},
	} {
		e := newExamination(t.Context(), time.Minute, nil)
		cfg := &config.Config{Shared: config.Shared{S3: config.S3{Bucket: "images", Write: test.write}}}
		checkBucket(e, cfg, func(context.Context, *config.Config) (bucket.Check, error) { return test.check, test.err })
		if len(e.steps) != 1 {
			t.Fatalf("%s: the steps are %+v", name, e.steps)
		}
		s := e.steps[0]
		if s.Name != "bucket" || s.Status != test.status || !strings.Contains(s.Detail, test.detail) || !strings.Contains(s.Advice, test.advice) || (s.Status == OK) != (s.Advice == "") {
			t.Errorf("%s: %+v, want %s, %q and %q", name, s, test.status, test.detail, test.advice)
		}
	}
}

func TestDoctorTriesNoBucketThatIsNotConfigured(t *testing.T) {
	e := newExamination(t.Context(), time.Minute, nil)
	checkBucket(e, &config.Config{}, func(context.Context, *config.Config) (bucket.Check, error) {
		return bucket.Check{}, errors.New("it was tried")
	})
	if len(e.steps) > 0 {
		t.Errorf("the steps are %+v", e.steps)
	}
}
