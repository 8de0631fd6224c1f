package fill

import (
	"context"
	"errors"
	"io/fs"
)

var (
	// ErrMismatch says that the content does not match its digest.
	ErrMismatch = errors.New("the content does not match its digest")
	// ErrOver says that the fill ended before the caller could join it. The caller looks
	// for the blob again.
	ErrOver = errors.New("the fill has ended")

	errSize     = errors.New("the source tells another size than its manifest")
	errChanged  = errors.New("the source tells another size than before")
	errReplaced = errors.New("another source has taken over")
	errTooSlow  = errors.New("the source sends too slowly")
	errIdle     = errors.New("no client waits, and the source sends next to nothing")
	errUnwanted = errors.New("the blob is not wanted any more")
	errStalled  = errors.New("no byte arrived in time")
	errNoRanges = errors.New("the source ignores ranges")
	errTooShort = errors.New("the body ended early")
	errNoSize   = errors.New("neither the source nor a manifest tells the size")
)

// contradicts reports whether an error says that a source contradicted its manifest or
// itself.
func contradicts(err error) bool {
	return errors.Is(err, ErrMismatch) || errors.Is(err, errSize) || errors.Is(err, errChanged)
}

// DiskError is a failure of this node's disk: the blob can still be had from its source.
type DiskError struct{ Err error }

func (e DiskError) Error() string { return e.Err.Error() }

// Unwrap is for errors.Is and errors.As.
func (e DiskError) Unwrap() error { return e.Err }

func isDiskError(err error) bool {
	var failed DiskError
	return errors.As(err, &failed)
}

// IsPostponed reports an error of a source that the operator does not want to be asked now.
func IsPostponed(err error) bool {
	var postponed interface{ Postponed() bool }
	return errors.As(err, &postponed) && postponed.Postponed()
}

// Results of fills, as metrics name them.
const (
	ResultOK       = "ok"
	ResultMismatch = "mismatch"
	ResultDisk     = "disk"
	ResultMissing  = "missing"
	ResultDenied   = "denied"
	ResultStopped  = "stopped"
	ResultUpstream = "upstream"
)

// Results lists all of them.
func Results() []string {
	return []string{ResultOK, ResultMismatch, ResultDisk, ResultMissing, ResultDenied, ResultStopped, ResultUpstream}
}

// ResultOf names the outcome of a fill.
func ResultOf(err error) string {
	switch {
	case err == nil:
		return ResultOK
	case contradicts(err):
		return ResultMismatch
	case isDiskError(err):
		return ResultDisk
	case errors.Is(err, fs.ErrNotExist):
		return ResultMissing
	case errors.Is(err, fs.ErrPermission):
		return ResultDenied
	case errors.Is(err, context.Canceled), errors.Is(err, errUnwanted), IsPostponed(err):
		return ResultStopped
	}
	return ResultUpstream
}
