package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/bucket"
)

// maxAhead is how far the clock of a store may be from this one's: S3 refuses requests from 15 minutes on, and tags in the bucket
// that seem to be of the future are not used from 5 on.
const maxAhead = time.Minute

// checkBucket finds out whether the bucket can be used. Without one in the configuration there is no such step.
func checkBucket(e *examination, cfg *config.Config, try func(context.Context, *config.Config) (bucket.Check, error)) {
	if try == nil || !cfg.Shared.S3.On() {
		return
	}
	e.step("bucket", nil, func(ctx context.Context) finding {
		found, err := try(ctx, cfg)
		if err != nil {
			return failed(err, "Correct the AWS configuration of this machine.")
		}
		return bucketFinding(cfg, found)
	})
}

func bucketFinding(cfg *config.Config, c bucket.Check) finding {
	switch {
	case c.Reached != nil:
		return failed(c.Reached, "Look at shared.s3 (bucket, region, endpoint, path_style), the way to the store, and whether the role has deploy/iam/bucket-read.json.")
	case c.Read != nil:
		return failed(c.Read, "Attach deploy/iam/bucket-read.json to the role, and kms:Decrypt where the bucket has a key of AWS KMS.")
	case c.Written != nil:
		return failed(c.Written, "Attach deploy/iam/bucket-write.json to the role, and kms:GenerateDataKey where the bucket has a key of AWS KMS; or set shared.s3.write to false.")
	}
	said := []string{fmt.Sprintf("%s can be read", c.Place)}
	if cfg.Shared.S3.Write {
		said[0] += " and written"
	}
	f := finding{status: OK}
	switch {
	case cfg.Shared.S3.Write && !c.Heeds:
		said = append(said, "the store ignores If-None-Match: nodes may put an object twice, and who may write may replace it")
		f.status, f.advice = Warning, "Use a store that heeds conditional puts, or let one node write."
	case c.Ahead.Abs() > maxAhead:
		said = append(said, fmt.Sprintf("the store's clock is %+.0f s from this one's", c.Ahead.Seconds()))
		f.status, f.advice = Warning, "Set this machine's clock by NTP: S3 refuses requests of another time, and the bucket says when tags were confirmed."
	}
	if cfg.Shared.KeyFile == "" {
		said = append(said, "without shared.key_file it gives nothing of repositories and tags that this node does not know")
	}
	f.detail = strings.Join(said, "\n")
	return f
}
