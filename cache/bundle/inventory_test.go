package bundle_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/bundle"
)

func written(t *testing.T, inv *bundle.Inventory) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := inv.Write(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestInventoryIsReadAsItWasWritten(t *testing.T) {
	digests := []digest.Digest{digest.FromString("b"), digest.FromString("a"), digest.SHA512.FromString("c"), digest.FromString("b")}
	images := []bundle.InventoryImage{
		{Name: "ghcr.io/org/app:1", Digest: digest.FromString("a")}, {Name: "docker.io/library/redis:7", Digest: digest.FromString("b")},
	}
	raw := written(t, bundle.NewInventory(digests, images))
	slices.Reverse(digests)
	slices.Reverse(images)
	if again := written(t, bundle.NewInventory(digests, images)); !bytes.Equal(raw, again) {
		t.Errorf("the same content in another order makes %s, and %s", raw, again)
	}
	got, err := bundle.ReadInventory(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bundle.NewInventory(digests, images), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, d := range digests {
		if !got.Has(d) {
			t.Errorf("it does not have %s", d)
		}
	}
	if got.Has(digest.FromString("d")) {
		t.Error("it has what it does not list")
	}
}

func TestInventoryMayBeEmpty(t *testing.T) {
	got, err := bundle.ReadInventory(bytes.NewReader(written(t, bundle.NewInventory(nil, nil))))
	if err != nil || len(got.Digests) != 0 || got.Has(digest.FromString("a")) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestInventoriesThatCannotBeReadAreRefused(t *testing.T) {
	a := string(digest.FromString("a"))
	for _, c := range []struct{ name, content, want string }{
		{"nothing", "", "JSON"},
		{"an array", "[]", "JSON object"},
		{"half", `{"version":1,"digests":["` + a + `"`, "EOF"},
		{"no version", `{"digests":[]}`, "no version"},
		{"a later version", `{"version":2,"digests":{}}`, "newer Larder"},
		{"a digest twice", `{"version":1,"digests":["` + a + `","` + a + `"]}`, "twice"},
		{"something else", `{"version":1,"digests":["../x"]}`, "no digest"},
		{"millions of nothing", `{"version":1,"digests":[` + strings.Repeat(`"",`, 5_000_000) + `""]}`, "no digest"},
		{"an image without a name", `{"version":1,"images":[{"digest":"` + a + `"}]}`, "no name"},
		{"an image twice", `{"version":1,"images":[{"name":"a","digest":"` + a + `"},{"name":"a","digest":"` + a + `"}]}`, "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := bundle.ReadInventory(strings.NewReader(c.content)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := bundle.ReadInventory(io.MultiReader(strings.NewReader(`{"version":1,"x":"`), spaces{})); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("an inventory without an end: %v", err)
	}
	if inv, err := bundle.ReadInventory(strings.NewReader(`{"version":1,"added later":[{}],"digests":["` + a + `"]}`)); err != nil || !inv.Has(digest.FromString("a")) {
		t.Errorf("a field that is added later: %v", err)
	}
}

// spaces is an endless reader.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestInventoryThatCouldNotBeReadIsNotWritten(t *testing.T) {
	digests := make([]digest.Digest, 500_000)
	for i := range digests {
		digests[i] = digest.Digest(fmt.Sprintf("sha256:%064x", i))
	}
	if err := bundle.NewInventory(digests, nil).Write(io.Discard); err == nil || !strings.Contains(err.Error(), "500000 blobs") {
		t.Errorf("got %v", err)
	}
	if err := bundle.NewInventory([]digest.Digest{"x"}, nil).Write(io.Discard); err == nil {
		t.Error("a digest that is none is written")
	}
}
