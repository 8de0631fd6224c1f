package ecr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr/denial"
	"github.com/larder-registry/larder/upstream/redact"
)

// credentialsError is an [auth.Error] whose text says which policy statement would
// allow an action that AWS denied.
type credentialsError struct{ error *auth.Error }

func newCredentialsError(what string, cause error) error {
	return &credentialsError{auth.NewError(what, cause)}
}

func (e *credentialsError) Error() string { return denial.Explain(e.error.Error()) }
func (e *credentialsError) Unwrap() error { return e.error }

// DenialAttrs is as that of [reply.Error].
func (e *credentialsError) DenialAttrs() []slog.Attr { return denial.Attrs(e.error.Error()) }

// withoutSecrets returns an error of AWS's SDK without what its request was signed with: the
// answer, which may repeat it, is in the text. It unwraps to err; nil stays nil.
func withoutSecrets(err error) error {
	var sent redact.Secrets
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil && answer.Response.Request != nil {
		sent = redact.Of(answer.Response.Request)
	}
	return sent.Error(err)
}

// apiError is the error of a call of an AWS API. It does not unwrap to its cause:
// a file with credentials that does not exist must not read as a policy that does
// not exist.
type apiError struct {
	what  string
	cause error
	kind  error // fs.ErrNotExist, fs.ErrPermission, the cause of an ended context, or nil
}

// Throttled reports whether AWS refused the call as one of too many.
func (e *apiError) Throttled() bool { return isThrottled(e.cause) }

// code returns AWS's code of the error, or "".
func (e *apiError) code() string {
	var refusal smithy.APIError
	if errors.As(e.cause, &refusal) {
		return refusal.ErrorCode()
	}
	return ""
}

func (e *apiError) Error() string { return fmt.Sprintf("%s: %v", e.what, e.cause) }
func (e *apiError) Unwrap() error { return e.kind }

// newAPIError returns the error of a call with ctx that returned err.
func newAPIError(ctx context.Context, what string, err error) *apiError {
	e := &apiError{what: what, cause: err, kind: context.Cause(ctx)}
	switch e.code() {
	case "LifecyclePolicyNotFoundException", "RepositoryNotFoundException", "ImageNotFoundException":
		e.kind = fs.ErrNotExist
	case "AccessDeniedException", "AccessDenied":
		e.kind = fs.ErrPermission
	}
	return e
}
