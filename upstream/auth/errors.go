package auth

import (
	"errors"
	"fmt"

	"github.com/larder-registry/larder/upstream/reply"
)

// Error is the error of a request for which there are no credentials. It does not
// unwrap to its cause: a password file that does not exist must not read as an
// image that does not exist.
type Error struct {
	what  string
	cause error
}

// NewError returns the error of an attempt to get credentials. what is such as
// "read the password".
func NewError(what string, cause error) *Error { return &Error{what, cause} }

func (e *Error) Error() string {
	return fmt.Sprintf("no usable credentials: %s: %s", e.what, reply.OneLine(e.cause.Error()))
}

// ErrNoToken is the cause of an [Error] if a token service or API answered without
// a token.
var ErrNoToken = errors.New("there is no token in it")
