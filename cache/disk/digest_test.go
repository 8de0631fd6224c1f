package disk_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

func TestCheckDigestAgreesWithTheLibrary(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, d := range []digest.Digest{
		digest.Digest("sha256:" + hex), digest.Digest("sha512:" + hex + hex), digest.Digest("sha256:" + hex + "0"),
		digest.Digest("sha256:" + hex[1:] + "G"), digest.Digest("sha256:" + strings.ToUpper(hex)), digest.Digest("sha257:" + hex),
		"", "sha256:", digest.Digest(hex), digest.Digest("sha256:" + hex[2:] + "/."),
	} {
		if got, want := disk.CheckDigest(d), d.Validate(); !errors.Is(got, want) {
			t.Errorf("%q: %v, want %v", d, got, want)
		}
	}
}
