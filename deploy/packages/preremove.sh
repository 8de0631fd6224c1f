#!/bin/sh
# Runs before a removal (deb: remove; rpm: 0). Before an upgrade it does nothing.
set -e
[ "$1" = remove ] || [ "$1" = 0 ] || exit 0
[ -d "${LARDER_SYSTEMD:-/run/systemd/system}" ] || exit 0
systemctl disable --now larder.socket larder.service
