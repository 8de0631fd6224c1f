#!/bin/sh
# After a removal. The cache stays until a purge (deb), or until it is deleted by hand (rpm).
set -e
[ "$1" != purge ] || rm -rf "${DPKG_ROOT:-}/var/lib/larder" # dpkg(1): empty unless it works in another root
[ -d "${LARDER_SYSTEMD:-/run/systemd/system}" ] || exit 0
systemctl daemon-reload
