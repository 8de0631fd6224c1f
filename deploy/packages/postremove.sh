#!/bin/sh
# Runs after a removal. The cache stays until a purge (deb), or until it is deleted by hand (rpm).
set -e
[ "$1" != purge ] || rm -rf "${DPKG_ROOT:-}/var/lib/larder" "${DPKG_ROOT:-}/var/lib/larder-access" # dpkg(1): DPKG_ROOT is empty unless dpkg works in another root
[ -d "${LARDER_SYSTEMD:-/run/systemd/system}" ] || exit 0
systemctl daemon-reload
