package main

import (
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// inherited are the listeners that a service manager opened before it started
// this process, by the names that it gave them (sd_listen_fds_with_names(3)). It
// keeps them while the process is replaced, so that clients wait and are not
// refused.
func inherited() (map[string]net.Listener, error) {
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
	isReady    notice = daemon.SdNotifyReady
	isStopping notice = daemon.SdNotifyStopping
)

// tell is for whoever started the process, if he listens.
func tell(log *slog.Logger, n notice) {
	if _, err := daemon.SdNotify(false, string(n)); err != nil {
		log.Warn("the service manager was not told", "notice", strings.TrimSpace(string(n)), "error", err)
	}
}
