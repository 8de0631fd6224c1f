package carry

import (
	"bytes"
	"net/http"

	"github.com/larder-registry/larder/cache/bundle"
)

// inventory answers with what the cache has, as a [bundle.Inventory].
func (a *API) inventory(w http.ResponseWriter, _ *http.Request) error {
	raw, err := a.takeInventory()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // an error means that the client has left
	return nil
}

func (a *API) takeInventory() ([]byte, error) {
	digests, err := a.store.Digests()
	if err != nil {
		return nil, err
	}
	pins, err := a.store.Pins()
	if err != nil {
		return nil, err
	}
	images := []bundle.InventoryImage{} // [] rather than null
	for _, pin := range pins {
		if pin.Bundle != "" && pin.Digest != "" {
			images = append(images, bundle.InventoryImage{Name: pin.Image, Digest: pin.Digest})
		}
	}
	var buf bytes.Buffer
	err = bundle.NewInventory(digests, images).Write(&buf)
	return buf.Bytes(), err
}
