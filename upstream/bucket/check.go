package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Check is what works with a bucket. Each error is nil if that works, and says what to do if not; what comes after an error was
// not tried.
type Check struct {
	Place Place
	// Reached is that the bucket is there, answers, and may be listed.
	Reached error
	// Read is that its objects may be read.
	Read error
	// Written is that objects may be put, and Heeds that the store heeds conditions. They are told if Write was wanted.
	Written error
	Heeds   bool
	// Ahead is how far the store's clock is ahead of this one's.
	Ahead time.Duration
}

// Try finds out what works with a bucket. With write it puts one small object.
func Try(ctx context.Context, at Place, cfg aws.Config, via http.RoundTripper, write bool) Check {
	c := Check{Place: at}
	s := connect(cfg, at, via, 0)
	name := newNames(at.Prefix).probe()
	if c.Ahead, c.Reached = s.reach(ctx); c.Reached != nil {
		return c
	}
	if _, err := s.read(ctx, name, maxRecord); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Read = fmt.Errorf("read %s%s: %w", at, probeName, err)
		return c
	}
	if write {
		if c.Heeds, c.Written = s.heedsConditions(ctx, name); c.Written != nil {
			c.Written = fmt.Errorf("put %s%s: %w", at, probeName, c.Written)
		}
	}
	return c
}

// reach asks for the bucket itself, and returns how far the store's clock is ahead.
func (s *store) reach(ctx context.Context) (ahead time.Duration, err error) {
	out, err := s.api.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	if err != nil {
		if err = kindOf(err); errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no such bucket")
		}
		return 0, fmt.Errorf("ask for the bucket %s: %w", s.bucket, err)
	}
	told, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	came, known := awsmiddleware.GetResponseAt(out.ResultMetadata)
	if ok && known {
		ahead = told.Sub(came)
	}
	return ahead, nil
}
