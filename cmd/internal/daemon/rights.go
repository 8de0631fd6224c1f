package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/larder-registry/larder/cmd/internal/peercred"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

// userKey is the key of a request's context for the number of the user that sent it. There is
// none if the kernel does not tell.
type userKey struct{}

// newSocketServer is newServer for the socket of commands. Any process that may connect may
// read; root and the user of this process may change and export.
func newSocketServer(l net.Listener, h http.Handler, drain time.Duration, log *slog.Logger) *server {
	s := newServer(l, readersOnly(h), drain, log)
	s.http.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if unix, ok := conn.(syscall.Conn); ok {
			if peer, err := peercred.Of(unix); err == nil {
				return context.WithValue(ctx, userKey{}, peer.UID)
			}
		}
		return ctx
	}
	return s
}

// userOf returns the number of the user that sent a request, or "unknown".
func userOf(r *http.Request) string {
	if user, known := r.Context().Value(userKey{}).(int); known {
		return strconv.Itoa(user)
	}
	return "unknown"
}

// readersOnly refuses requests that do more than read, unless they come from root or from the
// user of this process. A user that the kernel does not tell may only read.
func readersOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, known := r.Context().Value(userKey{}).(int)
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		if reads || known && (user == 0 || user == os.Geteuid()) {
			h.ServeHTTP(w, r)
			return
		}
		answer.RefuseWith(w, http.StatusForbidden, fmt.Errorf("only root and the daemon's user, number %d, may do this; others may list and watch", os.Geteuid()))
	})
}
