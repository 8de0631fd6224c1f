package ecr

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signer"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// SignerSignature is a signature of AWS Signer, as its API names it (AWS Signer API reference,
// GetRevocationStatus).
type SignerSignature struct {
	Region            string // of the signing profile
	Platform          string
	ProfileVersion    string // ARN
	Job               string // ARN
	Signed            time.Time
	CertificateHashes []string
}

// Revoked asks AWS Signer what is revoked of a signature: ARNs and hashes of certificates, or nothing.
// The credentials are those of the registry. The error is fs.ErrPermission if they lack
// signer:GetRevocationStatus; [reply.IsThrottled] tells whether there were too many requests. It is an
// [offline.Error] while the registry is offline. Requests of clients go first.
func (r *Registry) Revoked(ctx context.Context, s SignerSignature) ([]string, error) {
	ctx, leave, err := r.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return r.api.revoked(pace.Background(ctx), s)
}

// withoutHostPrefix lets the SDK ask a configured endpoint by its name.
func withoutHostPrefix(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("WithoutHostPrefix",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
		}), middleware.Before)
}

// revoked calls GetRevocationStatus, which has a limiter of its own.
func (a *api) revoked(ctx context.Context, s SignerSignature) ([]string, error) {
	const what = "ask AWS Signer about the revocation of a signature"
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	cfg, err := a.session.config(ctx)
	if err != nil {
		return nil, err
	}
	client := signer.NewFromConfig(*cfg, func(o *signer.Options) {
		o.Region = s.Region
		if o.BaseEndpoint != nil { // it is that of this operation, which has a host of its own
			o.APIOptions = append(o.APIOptions, withoutHostPrefix)
		}
	})
	deadline, _ := ctx.Deadline()
	sent, err := a.signer.Wait(ctx, pace.Manifests, deadline)
	if err != nil {
		return nil, newAPIError(ctx, what, err)
	}
	ctx, end := a.counter.BeginAPI(ctx, "AWS Signer GetRevocationStatus")
	out, err := client.GetRevocationStatus(ctx, &signer.GetRevocationStatusInput{
		CertificateHashes: s.CertificateHashes, JobArn: &s.Job, PlatformId: &s.Platform, ProfileVersionArn: &s.ProfileVersion,
		SignatureTimestamp: aws.Time(s.Signed),
	})
	err = withoutSecrets(err)
	throttled := isThrottled(err)
	end(err, throttled)
	var answered smithy.APIError
	switch {
	case throttled:
		a.signer.Refused(sent, pace.Refusal{Err: err, Throttled: true})
	case err == nil, errors.As(err, &answered):
		a.signer.Succeeded()
	}
	if err != nil {
		return nil, newAPIError(ctx, what, err)
	}
	return out.RevokedEntities, nil
}
