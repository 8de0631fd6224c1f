package disk_test

import (
	"testing"

	"github.com/larder-registry/larder/cache/disk"
)

func TestChargeCountsTheBlocksThatMapALargeFile(t *testing.T) {
	for size, want := range map[int64]int64{
		0:          0,
		1:          4 << 10,
		4 << 10:    4 << 10,
		16<<20 - 1: 16 << 20,
		16 << 20:   16<<20 + 4<<10,
		128 << 20:  128<<20 + 8<<10,
		256 << 20:  256<<20 + 12<<10,
	} {
		if got := disk.Charge(size); got != want {
			t.Errorf("%d bytes are charged %d, want %d", size, got, want)
		}
	}
}
