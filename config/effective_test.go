package config

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each key of the configuration is shown, by its name, and nothing else is.
func TestEffectiveHasEachKey(t *testing.T) {
	keys := make(map[string]bool)
	var add func(at string, below []field)
	add = func(at string, below []field) {
		for _, f := range below {
			key := join(at, f.name)
			switch {
			case f.section != nil:
				add(key, f.section())
			case f.list != nil && f.list(1)[0].section != nil:
				add(key+"[0]", f.list(1)[0].section())
			default:
				keys[key] = true
			}
		}
	}
	var c Config
	add("", fields(&c, ""))
	shown := make(map[string]bool)
	for _, s := range c.Effective() {
		shown[s.Key] = true
	}
	if want, got := slices.Sorted(maps.Keys(keys)), slices.Sorted(maps.Keys(shown)); !slices.Equal(got, want) {
		t.Errorf("the keys are %q,\nwant %q", got, want)
	}
}

func TestEffectiveShowsValuesAsTheConfigurationHasThem(t *testing.T) {
	c := defaults()
	c.Cache.MaxSize = Amount{Percent: 80}
	c.Tags.TTL = 90 * time.Second
	c.Link.Background.Hours = Hours{From: 22 * 60, To: 5 * 60}
	c.Upstreams = []Upstream{{Host: "quay.io", ECR: &ECR{ExternalID: "not for everyone", Replicas: []string{"eu-west-1", "us-east-1"}}, Auth: Auth{PasswordFile: "/run/secrets/quay"}}}
	shown := make(map[string]string)
	for _, s := range c.Effective() {
		shown[s.Key] = s.Value
		if strings.Contains(s.Value, "not for everyone") {
			t.Errorf("%s is %q", s.Key, s.Value)
		}
	}
	for key, want := range map[string]string{
		"cache.max_size":                  "80%",
		"tags.ttl":                        "1m30s",
		"link.background.hours":           "22:00-05:00",
		"upstreams[0].host":               "quay.io",
		"upstreams[0].ecr.replicas":       "eu-west-1, us-east-1",
		"upstreams[0].ecr.external_id":    "(not shown)",
		"upstreams[0].auth.password_file": "/run/secrets/quay",
	} {
		if shown[key] != want {
			t.Errorf("%s is %q, want %q", key, shown[key], want)
		}
	}
}
