package fill // white-box: a client cannot act between the arrival of the last byte and its check

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestLastByteWaitsForTheDigest(t *testing.T) {
	set := Settings{}.WithDefaults()
	f := New(t.Context(), &set, digest.FromString("a blob"), Source{}, time.Now())
	f.state, f.size, f.segs = filling, 10, newSegments(10)
	f.segs.claim(0, 10).have = 10
	if n := f.readableLocked(0); n != 9 {
		t.Errorf("a client may read %d bytes before the digest is verified, want 9", n)
	}
	if _, n, err := f.claimFront(); n != 10 || err != nil {
		t.Errorf("the hash may read %d bytes, %v; want 10", n, err)
	}
	f.state = verified
	if n := f.readableLocked(9); n != 1 {
		t.Errorf("a client may read %d last bytes when the digest is verified, want 1", n)
	}
}
