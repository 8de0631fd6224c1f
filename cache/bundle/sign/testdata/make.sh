#!/bin/sh
# Makes the keys and signatures of this folder again, with cosign 3 and openssl in PATH:
#
#     cd cache/bundle/sign/testdata && ./make.sh
#
# The keys are for tests only. Each signature is one of message.txt.
set -eu
export COSIGN_PASSWORD=secret
config=$(mktemp)
trap 'rm -f "$config"' EXIT
rm -f ./*.key ./*.pub ./*.sigstore.json
cosign signing-config create --out "$config" # no log and no timestamps
printf 'what was signed\n' >message.txt
pair() { # name, options of openssl genpkey
	name=$1
	shift
	openssl genpkey -quiet "$@" -out "$name.pem"
	openssl pkey -in "$name.pem" -pubout -out "$name.pub"
	cosign import-key-pair --key "$name.pem" --output-key-prefix "$name" --yes
	rm "$name.pem"
	cosign sign-blob --key "$name.key" --bundle "$name.sigstore.json" --signing-config "$config" --yes message.txt
}
pair p256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
pair p384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
pair rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
pair ed25519 -algorithm ED25519
