package config

import "testing"

func TestImagePatternsCrossSlashes(t *testing.T) {
	const name = "registry.example:5000/team/web/app:v1.2"
	for _, c := range []struct {
		pattern string
		want    bool
	}{
		{"*", true},
		{name, true},
		{"*/team/*:v1*", true},
		{"registry.example:5000/*", true},
		{"*:v1.?", true},
		{"*:v[1-3]*", true},
		{"*app*", true},
		{"", false},
		{"app", false},
		{"*/app", false},
		{"*:v2*", false},
		{"team/*", false},
	} {
		if got, err := MatchImage(c.pattern, name); got != c.want || err != nil {
			t.Errorf("%q: %t, %v", c.pattern, got, err)
		}
	}
	if _, err := MatchImage("*[", name); err == nil {
		t.Error("a pattern without an end is taken")
	}
}

func TestPinsAreThoseOfAnyPattern(t *testing.T) {
	c := Cache{Pin: []string{"*/team/*:v1*", "docker.io/library/busybox:1.36"}}
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
	if (&Cache{}).Pins("docker.io/library/busybox:1.36") {
		t.Error("no pattern pins an image")
	}
}
