#!/bin/sh
# After a removal. The cache stays until a purge (deb), or until it is deleted by hand (rpm).
set -e
[ "$1" != purge ] || rm -rf /var/lib/larder
[ -d "${LARDER_SYSTEMD:-/run/systemd/system}" ] || exit 0
systemctl daemon-reload
