package config_test

import (
	"testing"
	"time"

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

func TestTagsAreImmutableByAnyPattern(t *testing.T) {
	tags := config.Tags{Immutable: []name.ImagePattern{"*:v*", "docker.io/library/busybox:1.36"}}
	for image, want := range map[string]bool{
		"registry.example/team/app:v1.0":   true,
		"docker.io/library/busybox:1.36":   true,
		"docker.io/library/busybox:1.37":   false,
		"registry.example/team/app:stable": false,
	} {
		if got := tags.IsImmutable(image); got != want {
			t.Errorf("%s: %t", image, got)
		}
	}
}

func TestFirstCooldownThatMatchesCounts(t *testing.T) {
	tags := config.Tags{Cooldown: []config.Cooldown{
		{Match: "docker.io/library/*", For: time.Hour, First: "wait"},
		{Match: "docker.io/*", For: 2 * time.Hour, First: "serve"},
	}}
	for image, want := range map[string]time.Duration{
		"docker.io/library/busybox:1.36": time.Hour,
		"docker.io/team/app:v1":          2 * time.Hour,
		"registry.example/team/app:v1":   0,
	} {
		got, ok := tags.CooldownOf(image)
		if got.For != want || ok != (want > 0) || got.FirstWaits() != (want == time.Hour) {
			t.Errorf("%s: %+v, %t", image, got, ok)
		}
	}
}
