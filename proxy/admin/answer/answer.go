// Package answer reads the requests of /api/v1 and writes its answers: JSON, lines of JSON, and
// errors, as an object with the member error.
//
// Its functions may be called by several goroutines, for one request each.
package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
)

var (
	// ErrRequest is the error for a body that is not what the request needs.
	ErrRequest = errors.New("read the request")
	// ErrTooLarge is the error for a body beyond its limit. It comes with ErrRequest.
	ErrTooLarge = errors.New("it is too large")
)

// Read reads the body of a request, which is JSON of at most limit bytes, into v. It reads to the
// end, so that the server notices when the client leaves. The error is ErrRequest.
func Read(r *http.Request, limit int64, v any) error {
	raw, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%w: it has more than %d bytes", ErrTooLarge, limit)
	}
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return nil
}

// JSON answers with v and the status 200.
func JSON(w http.ResponseWriter, v any) { write(w, http.StatusOK, v) }

// Refuse answers with an error, and the status that its kind has.
func Refuse(w http.ResponseWriter, err error) { RefuseWith(w, statusOf(err), err) }

// RefuseWith is Refuse with another status.
func RefuseWith(w http.ResponseWriter, status int, err error) {
	write(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client has left
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrRequest):
		return http.StatusBadRequest
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound
	case errors.Is(err, cache.ErrPinned), errors.Is(err, cache.ErrConfigured):
		return http.StatusConflict
	case errors.Is(err, cache.ErrMismatch):
		return http.StatusUnprocessableEntity
	case errors.Is(err, unix.ENOSPC):
		return http.StatusInsufficientStorage
	case errors.Is(err, cache.ErrClosed):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
