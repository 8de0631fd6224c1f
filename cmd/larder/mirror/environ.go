package mirror

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/larder-registry/larder/cmd/internal/peercred"
)

// Environ returns the environment of the process that listens at a Unix socket, from Linux's
// /proc. The caller must be root and see the node's processes.
func Environ(ctx context.Context, socket string) ([]string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	peer, err := peercred.Of(conn.(*net.UnixConn))
	if err != nil {
		return nil, fmt.Errorf("find the process behind %s: %w", socket, err)
	}
	if peer.PID <= 0 {
		return nil, fmt.Errorf("the process behind %s is not visible from here", socket)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", peer.PID))
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == 0 }), nil
}
