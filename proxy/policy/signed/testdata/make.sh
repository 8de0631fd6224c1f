#!/bin/sh
# Makes the images and signatures of this folder again, with notation 1.3 and cosign 3 in PATH:
#
#     proxy/policy/signed/testdata/make.sh
#
# The tests that run these programs write what they made, after both decided the same about it. The keys are for
# tests only.
set -eu
cd "$(dirname "$0")/.."
LARDER_REQUIRE=notation,cosign go test -count=1 -run 'AreDecidedAsBy' . -update
