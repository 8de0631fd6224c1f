package bucket

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/opencontainers/go-digest"
)

const (
	// multipartFrom is the size in bytes from which objects are put in parts: a part that breaks off is sent again
	// rather than all.
	multipartFrom = 64 << 20
	// partSize is the least size of a part in bytes, and maxParts less than the most that S3 takes (10,000).
	partSize = 32 << 20
	maxParts = 9000
	// abortTimeout bounds how long it is waited for the end of a multipart upload that has failed.
	abortTimeout = 5 * time.Second
)

// store is a bucket as the S3 API has it. Nothing is tried twice. It is safe for concurrent use.
type store struct {
	api    *s3.Client
	bucket string
	slow   int64 // bytes a second that a body is sent at the least
}

// sending returns a context for a request that sends n bytes.
func (s *store) sending(ctx context.Context, n int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, smallTimeout+time.Duration(n/s.slow)*time.Second)
}

// Errors of a store beside fs.ErrNotExist for an object that does not exist.
var (
	errThere    = errors.New("the object is there already")                       // 412
	errConflict = errors.New("another request for the same object is on its way") // 409
	// ErrDenied is the error of a request that the bucket's policy does not allow. S3 answers so for an object that
	// does not exist, too, where the caller may not list the bucket.
	ErrDenied = errors.New("access denied: see deploy/iam for the policy that it takes, s3:ListBucket among it")
)

// kindOf adds the kind of an error to it.
func kindOf(err error) error {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) {
		return err
	}
	code := ""
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	switch status := answer.HTTPStatusCode(); {
	case status == http.StatusNotFound && code != "NoSuchBucket":
		return fs.ErrNotExist
	case status == http.StatusPreconditionFailed:
		return errThere
	case status == http.StatusConflict:
		return errConflict
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Errorf("%w (%s)", ErrDenied, code)
	case code != "" && code != "UnknownError":
		return fmt.Errorf("it answered with %d: %s", status, code)
	default:
		return fmt.Errorf("it answered with %d", status)
	}
}

// get opens n bytes of an object from an offset, or all of it if n is 0. It returns the size of the whole object, and
// whether the body begins at its first byte though another was asked for. The context ends the body.
func (s *store) get(ctx context.Context, name string, off, n int64) (body io.ReadCloser, size int64, whole bool, err error) {
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: &name}
	if n > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	out, err := s.api.GetObject(ctx, in)
	if err != nil {
		return nil, 0, false, kindOf(err)
	}
	if out.ContentRange == nil {
		return out.Body, aws.ToInt64(out.ContentLength), true, nil
	}
	_, text, _ := strings.Cut(*out.ContentRange, "/")
	size, err = strconv.ParseInt(text, 10, 64)
	if err != nil {
		out.Body.Close()
		return nil, 0, false, errors.New("it does not tell the size of the object")
	}
	return out.Body, size, false, nil
}

// read returns an object of a few bytes, at most.
func (s *store) read(ctx context.Context, name string, most int64) ([]byte, error) {
	body, size, _, err := s.get(ctx, name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if size > most {
		return nil, fmt.Errorf("the object has %d bytes, more than %d", size, most)
	}
	text, err := io.ReadAll(io.LimitReader(body, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("the object has more than %d bytes", most)
	}
	return text, err
}

// size returns the size of an object.
func (s *store) size(ctx context.Context, name string) (int64, error) {
	out, err := s.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &name})
	if err != nil {
		return 0, kindOf(err)
	}
	return aws.ToInt64(out.ContentLength), nil
}

// write puts a small object, whatever was there before.
func (s *store) write(ctx context.Context, name string, text []byte) error {
	_, err := s.api.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: &name, Body: bytes.NewReader(text)})
	if err != nil {
		return kindOf(err)
	}
	return nil
}

// putIfMissing puts a small object if there is none of its name. Otherwise the error is errThere, unless the store ignores
// conditions.
func (s *store) putIfMissing(ctx context.Context, name string, text []byte) error {
	_, err := s.api.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: &name, Body: bytes.NewReader(text), IfNoneMatch: aws.String("*")})
	if err != nil {
		return kindOf(err)
	}
	return nil
}

// putContent puts the content of a digest if the bucket does not have it, in which case the error is errThere.
func (s *store) putContent(ctx context.Context, name string, d digest.Digest, body io.ReaderAt, size int64) error {
	if size >= multipartFrom {
		return s.putParts(ctx, name, body, size)
	}
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &name, Body: io.NewSectionReader(body, 0, size), ContentLength: &size,
		IfNoneMatch: aws.String("*"), ContentType: aws.String("application/octet-stream"),
	}
	if sum, err := hex.DecodeString(d.Encoded()); err == nil && d.Algorithm() == digest.SHA256 {
		in.ChecksumSHA256 = aws.String(base64.StdEncoding.EncodeToString(sum)) // the store refuses other bytes
	}
	ctx, cancel := s.sending(ctx, size)
	defer cancel()
	if _, err := s.api.PutObject(ctx, in, unsignedBody); err != nil {
		return kindOf(err)
	}
	return nil
}

// unsignedBody has the body be sent as it is read, without a first pass for its signature.
func unsignedBody(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

// putParts is putContent for a large object. The condition holds at its completion.
func (s *store) putParts(ctx context.Context, name string, body io.ReaderAt, size int64) error {
	began, err := s.api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: &name, ContentType: aws.String("application/octet-stream"),
	})
	if err != nil {
		return kindOf(err)
	}
	parts, err := s.sendParts(ctx, name, began.UploadId, body, size)
	if err == nil {
		_, err = s.api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.bucket, Key: &name, UploadId: began.UploadId, IfNoneMatch: aws.String("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
	}
	if err == nil {
		return nil
	}
	err = kindOf(err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, abortErr := s.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: &name, UploadId: began.UploadId})
	if abortErr != nil && !errors.Is(kindOf(abortErr), fs.ErrNotExist) {
		err = fmt.Errorf("%w; its parts stay until the bucket's lifecycle rule removes them: %w", err, kindOf(abortErr))
	}
	return err
}

func (s *store) sendParts(ctx context.Context, name string, upload *string, body io.ReaderAt, size int64) ([]types.CompletedPart, error) {
	step := max(partSize, (size+maxParts-1)/maxParts)
	var parts []types.CompletedPart
	for off := int64(0); off < size; off += step {
		n, number := min(step, size-off), int32(len(parts)+1)
		tag, err := s.sendPart(ctx, &s3.UploadPartInput{
			Bucket: &s.bucket, Key: &name, UploadId: upload, PartNumber: &number,
			Body: io.NewSectionReader(body, off, n), ContentLength: &n,
		})
		if err != nil {
			return nil, err
		}
		parts = append(parts, types.CompletedPart{ETag: tag, PartNumber: &number})
	}
	return parts, nil
}

func (s *store) sendPart(ctx context.Context, part *s3.UploadPartInput) (tag *string, err error) {
	ctx, cancel := s.sending(ctx, *part.ContentLength)
	defer cancel()
	out, err := s.api.UploadPart(ctx, part, unsignedBody)
	if err != nil {
		return nil, err
	}
	return out.ETag, nil
}

// heedsConditions reports whether the store refuses to replace an object where If-None-Match says so. It writes one
// small object.
func (s *store) heedsConditions(ctx context.Context, name string) (bool, error) {
	for range 2 {
		err := s.putIfMissing(ctx, name, []byte("Larder tries here whether this store heeds If-None-Match.\n"))
		switch {
		case errors.Is(err, errThere):
			return true, nil
		case err != nil && !errors.Is(err, errConflict):
			return false, err
		}
	}
	return false, nil
}
