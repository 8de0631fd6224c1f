package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// inheritedListeners returns the listeners that a service manager opened before it
// started this process, by the names that it gave them
// (sd_listen_fds_with_names(3)). The service manager keeps them open while the
// process is replaced, so that clients wait and are not refused.
func inheritedListeners() (map[string]net.Listener, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take over sockets of the service manager: %w", err)
	}
	all := make(map[string]net.Listener)
	for name, listeners := range byName {
		for _, l := range listeners {
			if l == nil || all[name] != nil {
				return nil, fmt.Errorf("take over sockets of the service manager: %q must be one socket that listens for connections", name)
			}
			all[name] = l
		}
	}
	return all, nil
}

// A notice is what the service manager is told (sd_notify(3)).
type notice string

const (
	isReady    notice = systemd.SdNotifyReady
	isStopping notice = systemd.SdNotifyStopping
)

// send tells the service manager, if one listens.
func (n notice) send(log *slog.Logger) {
	if _, err := systemd.SdNotify(false, string(n)); err != nil {
		log.Warn("the service manager was not told", "notice", strings.TrimSpace(string(n)), "error", err)
	}
}
