package daemon

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/larder-registry/larder/proxy/access"
)

// Nothing that is served over TCP uses a request's body, but for forms that ask for a token. Some
// HTTP libraries send a small one with GET all the same.
const (
	bodyTimeout = 10 * time.Second
	maxBody     = 64 << 10
)

// readBody reads the bodies of requests before next answers them, so that no connection waits for a
// body that does not come. A body that does not arrive in time is answered with 400. After a longer
// body the connection is closed, and a longer form is refused. next gets forms, and no other body.
func readBody(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		if err := conn.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
			log.Debug("the body of a request has no deadline", "client", r.RemoteAddr, "error", err)
		}
		var form bytes.Buffer
		to := io.Discard
		if r.Method == http.MethodPost && r.URL.Path == access.TokenPath {
			to = &form
		}
		_, err := io.CopyN(to, r.Body, maxBody+1)
		switch {
		case errors.Is(err, io.EOF):
			_ = conn.SetReadDeadline(time.Time{}) // the connection may serve another request
		case err == nil:
			w.Header().Set("Connection", "close") // the deadline stays for what is left of the body
			if to == &form {
				http.Error(w, "the form is longer than 64 KiB", http.StatusRequestEntityTooLarge)
				return // a part of it could have a part of a password
			}
		default:
			log.Info("a request announced a body and did not send it", "client", r.RemoteAddr, "error", err)
			w.Header().Set("Connection", "close")
			http.Error(w, "the body of the request did not arrive", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(&form)
		next.ServeHTTP(w, r)
	})
}
