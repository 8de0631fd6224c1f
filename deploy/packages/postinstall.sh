#!/bin/sh
# Runs after an installation (deb: configure; rpm: 1) or an upgrade (deb: configure and the old version; rpm: 2).
set -e
[ -d "${LARDER_SYSTEMD:-/run/systemd/system}" ] || exit 0
systemd-sysusers larder.conf
systemd-tmpfiles --create larder.conf
systemctl daemon-reload
if systemctl is-active --quiet larder.service; then
	systemctl restart larder.service # clients wait at larder.socket meanwhile
elif [ "$1" = configure ] && [ -z "$2" ] || [ "$1" = 1 ]; then
	echo 'larder is installed. Start it and configure containerd to pull through it:'
	echo '  systemctl enable --now larder.socket larder.service && larder mirror'
fi
