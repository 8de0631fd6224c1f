package ecr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/aws/smithy-go"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr/denial"
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

// apiError is the error of a call of an AWS API. It does not unwrap to its cause:
// a file with credentials that does not exist must not read as a policy that does
// not exist.
type apiError struct {
	what  string
	cause error
	kind  error // fs.ErrNotExist, fs.ErrPermission, the cause of an ended context, or nil
}

// Throttled reports whether the error of a call is that there were too many
// requests. The call may not have been sent for that reason.
func Throttled(err error) bool {
	var e interface{ Throttled() bool } // also that of a pace.Limiter
	return errors.As(err, &e) && e.Throttled()
}

// Throttled reports whether AWS refused the call as one of too many.
func (e *apiError) Throttled() bool { return isThrottled(e.cause) }

func (e *apiError) Error() string { return fmt.Sprintf("%s: %v", e.what, e.cause) }
func (e *apiError) Unwrap() error { return e.kind }

// newAPIError returns the error of a call with ctx that returned err.
func newAPIError(ctx context.Context, what string, err error) *apiError {
	e := &apiError{what: what, cause: err, kind: context.Cause(ctx)}
	var refusal smithy.APIError
	if !errors.As(err, &refusal) {
		return e
	}
	switch refusal.ErrorCode() {
	case "LifecyclePolicyNotFoundException", "RepositoryNotFoundException":
		e.kind = fs.ErrNotExist
	case "AccessDeniedException":
		e.kind = fs.ErrPermission
	}
	return e
}
