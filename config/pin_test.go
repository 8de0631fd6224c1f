package config_test

import (
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

func TestImageIsPinnedByAnyPattern(t *testing.T) {
	c := config.Cache{Pin: []name.ImagePattern{"*/team/*:v1*", "docker.io/library/busybox:1.36"}}
	for image, want := range map[string]bool{
		"registry.example/team/app:v1.0":  true,
		"docker.io/library/busybox:1.36":  true,
		"docker.io/library/busybox:1.36a": false,
		"registry.example/team/app:v2":    false,
	} {
		if got := c.Pins(image); got != want {
			t.Errorf("%s: %t", image, got)
		}
	}
	if (&config.Cache{}).Pins("docker.io/library/busybox:1.36") {
		t.Error("an image is pinned without any pattern")
	}
}
