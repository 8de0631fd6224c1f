package members

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/memberlist"
)

func TestNodeIsReadAsItWasTold(t *testing.T) {
	for name, n := range map[string]Node{
		"IPv4":     {Content: netip.MustParseAddrPort("10.0.3.7:5002"), Zone: "us-east-1a", Version: "v1.2.3", Rights: 1<<63 + 7},
		"IPv6":     {Content: netip.MustParseAddrPort("[fd00::1]:5002"), Draining: true},
		"no zone":  {Content: netip.MustParseAddrPort("10.0.3.7:1"), Version: "v1"},
		"the most": {Content: netip.MustParseAddrPort("[fe80::1%eth0]:65535"), Zone: strings.Repeat("z", MaxZone), Version: strings.Repeat("v", maxVersion), Rights: 1<<64 - 1, Draining: true},
	} {
		t.Run(name, func(t *testing.T) {
			meta := n.encode()
			if len(meta) > memberlist.MetaMaxSize {
				t.Errorf("%d bytes of metadata make memberlist panic", len(meta))
			}
			for what, told := range map[string][]byte{"this release": meta, "a later one": append([]byte{2}, append(meta[1:], 1, 'x')...)} {
				got, err := decode(told)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(n, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
					t.Errorf("%s: %s", what, diff)
				}
			}
		})
	}
}

func TestLongZoneAndVersionAreCut(t *testing.T) {
	n := Node{Content: netip.MustParseAddrPort("10.0.3.7:5002"), Zone: strings.Repeat("z", 1000), Version: strings.Repeat("v", 1000)}
	got, err := decode(n.encode())
	if err != nil || len(got.Zone) != MaxZone || len(got.Version) != maxVersion {
		t.Errorf("got %+v and %v", got, err)
	}
}

func FuzzMetadataOfOthers(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(Node{Content: netip.MustParseAddrPort("10.0.3.7:5002"), Zone: "a", Version: "v1"}.encode())
	f.Add(append([]byte{metaFormat, 0, 0, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{255}, 300)...)) // a field of 255 bytes
	f.Fuzz(func(t *testing.T, meta []byte) {
		n, err := decode(meta)
		if err != nil {
			return
		}
		again, err := decode(n.encode())
		if err != nil || again != n {
			t.Errorf("%+v is told as %+v, %v", n, again, err)
		}
	})
}
