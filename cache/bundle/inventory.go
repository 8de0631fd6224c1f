package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxInventory is the size of the largest inventory, in bytes. It is enough for 400,000 blobs,
// which take 60 MB in memory.
const maxInventory = 32 << 20

// Inventory is what a site has. An exporter leaves it out of the next bundle, so that a
// bundle which never arrived costs nothing.
type Inventory struct {
	Version int `json:"version"`
	// Images are those of bundles that were imported earlier, sorted by name.
	Images []InventoryImage `json:"images"`
	// Digests are the blobs and manifests that are whole and verified, sorted.
	Digests []digest.Digest `json:"digests"`
}

// InventoryImage is an image that was imported.
type InventoryImage struct {
	Name   string        `json:"name"` // as in [Image]
	Digest digest.Digest `json:"digest"`
}

func (i InventoryImage) check() error {
	if err := checkName(i.Name); err != nil {
		return err
	}
	return checkDigest(i.Digest)
}

// NewInventory returns an inventory of blobs and images in any order, each counted once.
func NewInventory(digests []digest.Digest, images []InventoryImage) *Inventory {
	inv := &Inventory{Version: Version, Images: slices.Clone(images), Digests: slices.Clone(digests)}
	slices.Sort(inv.Digests)
	inv.Digests = slices.Compact(inv.Digests)
	slices.SortFunc(inv.Images, func(a, b InventoryImage) int { return strings.Compare(a.Name, b.Name) })
	inv.Images = slices.CompactFunc(inv.Images, func(a, b InventoryImage) bool { return a.Name == b.Name })
	return inv
}

// Has reports whether the site has a blob. It is for [Options.Present].
func (inv *Inventory) Has(d digest.Digest) bool {
	_, ok := slices.BinarySearch(inv.Digests, d)
	return ok
}

// Write writes the inventory as JSON. The same content makes the same bytes.
func (inv *Inventory) Write(w io.Writer) error {
	if err := inv.check(); err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	raw, err := json.Marshal(inv)
	if err != nil {
		return err
	}
	if raw = append(raw, '\n'); len(raw) > maxInventory {
		return fmt.Errorf("the inventory of %d blobs has %d bytes, and may have %d", len(inv.Digests), len(raw), maxInventory)
	}
	_, err = w.Write(raw)
	return err
}

// ReadInventory reads an inventory. It ignores fields that it does not know.
func ReadInventory(r io.Reader) (*Inventory, error) {
	limited := &io.LimitedReader{R: r, N: maxInventory + 1}
	inv, err := decodeInventory(json.NewDecoder(limited))
	switch {
	case limited.N == 0:
		err = fmt.Errorf("it has more than %d bytes", maxInventory)
	case err == nil:
		err = inv.check()
	}
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	return inv, nil
}

// decodeInventory decodes an inventory as it is read, since a large one would be in memory
// twice otherwise.
func decodeInventory(in *json.Decoder) (*Inventory, error) {
	start, err := in.Token()
	if _, wrong := errors.AsType[*json.SyntaxError](err); wrong || err == io.EOF || err == nil && start != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	if err != nil {
		return nil, err
	}
	var inv Inventory
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "version":
			if err = in.Decode(&inv.Version); err == nil {
				err = inv.checkVersion() // before something that has another form in a later version
			}
		case "images":
			err = decodeArray(in, maxElements, func(i InventoryImage) { inv.Images = append(inv.Images, i) })
		case "digests":
			err = decodeArray(in, math.MaxInt, func(d listedDigest) { inv.Digests = append(inv.Digests, digest.Digest(d)) })
		default:
			err = in.Decode(new(json.RawMessage))
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", key, err)
		}
	}
	_, err = in.Token()
	return &inv, err
}

// check ensures that what must be sorted is, and that nothing comes twice.
func (inv *Inventory) check() error {
	if err := inv.checkVersion(); err != nil {
		return err
	}
	for i, d := range inv.Digests {
		if err := checkDigest(d); err != nil {
			return err
		}
		if i > 0 && inv.Digests[i-1] >= d {
			return fmt.Errorf("its digests are not sorted, or one comes twice: %s", d)
		}
	}
	for i, image := range inv.Images {
		if err := image.check(); err != nil {
			return err
		}
		if i > 0 && inv.Images[i-1].Name >= image.Name {
			return fmt.Errorf("its images are not sorted, or one comes twice: %s", image.Name)
		}
	}
	return nil
}

func (inv *Inventory) checkVersion() error {
	switch {
	case inv.Version > Version:
		return fmt.Errorf("format %d is newer than this Larder, which reads formats up to %d: use a newer Larder", inv.Version, Version)
	case inv.Version < 1:
		return errors.New("it has no version")
	}
	return nil
}

// listedDigest is a digest in an array.
type listedDigest digest.Digest

func (d listedDigest) check() error { return checkDigest(digest.Digest(d)) }
