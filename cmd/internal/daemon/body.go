package daemon

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Nothing that is served over TCP uses a request's body. Some HTTP libraries send a small
// one with GET all the same.
const (
	bodyTimeout = 10 * time.Second
	maxBody     = 64 << 10
)

// discardBody reads the bodies of requests before next answers them, so that no connection
// waits for a body that does not come. A body that does not arrive in time is answered with
// 400. After a longer body the connection is closed.
func discardBody(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		if err := conn.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
			log.Debug("the body of a request has no deadline", "client", r.RemoteAddr, "error", err)
		}
		_, err := io.CopyN(io.Discard, r.Body, maxBody+1)
		switch {
		case errors.Is(err, io.EOF):
			_ = conn.SetReadDeadline(time.Time{}) // the connection may serve another request
		case err == nil:
			w.Header().Set("Connection", "close") // the deadline stays for what is left of the body
		default:
			log.Info("a request announced a body and did not send it", "client", r.RemoteAddr, "error", err)
			w.Header().Set("Connection", "close")
			http.Error(w, "the body of the request did not arrive", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
