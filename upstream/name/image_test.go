package name_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

const dgst = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestFullNames(t *testing.T) {
	for s, want := range map[string]name.Image{
		"docker.io/library/busybox:1.36":       {Host: "docker.io", Repository: "library/busybox", Tag: "1.36"},
		"GHCR.io/a/b:v1":                       {Host: "ghcr.io", Repository: "a/b", Tag: "v1"},
		"registry/app:v1":                      {Host: "registry", Repository: "app", Tag: "v1"},
		"registry:5000/app:v1":                 {Host: "registry:5000", Repository: "app", Tag: "v1"},
		"[::1]:5000/app:v1":                    {Host: "[::1]:5000", Repository: "app", Tag: "v1"},
		"ghcr.io/a/b@" + dgst:                  {Host: "ghcr.io", Repository: "a/b", Digest: dgst},
		"ghcr.io/a/b:v1@" + dgst:               {Host: "ghcr.io", Repository: "a/b", Digest: dgst},
		"":                                     {},
		"busybox:1.36":                         {}, // no host
		"ghcr.io/a":                            {}, // neither tag nor digest
		"ghcr.io/a:":                           {},
		"ghcr.io/a@":                           {},
		"ghcr.io/a@sha256:abc":                 {},
		"ghcr.io/a b:v1":                       {},
		"ghcr.io/A:v1":                         {},
		"ghcr.io//a:v1":                        {},
		"ghcr.io/../a:v1":                      {},
		"127.1/a:v1":                           {}, // not a host
		"reg:0/a:v1":                           {},
		"https://ghcr.io/a:v1":                 {},
		dgst:                                   {},
		"@" + dgst:                             {},
		"h/" + strings.Repeat("a", 256) + ":v": {},
	} {
		got, err := name.ParseImage(s)
		if got != want || (err == nil) != (want != name.Image{}) || err != nil && !errors.Is(err, name.ErrImage) {
			t.Errorf("ParseImage(%q) = %+v, %v; want %+v", s, got, err, want)
		}
	}
}

func TestShortNamesAreCompletedAsDockerDoes(t *testing.T) {
	for short, want := range map[string]string{
		"busybox":                       "docker.io/library/busybox:latest",
		"busybox:1.36":                  "docker.io/library/busybox:1.36",
		"busybox@" + dgst:               "docker.io/library/busybox@" + dgst,
		"grafana/grafana:12.0":          "docker.io/grafana/grafana:12.0",
		"docker.io/busybox":             "docker.io/library/busybox:latest",
		"docker.io/grafana/grafana:12":  "docker.io/grafana/grafana:12",
		"index.docker.io/busybox":       "docker.io/library/busybox:latest",
		"public.ecr.aws/nginx/nginx":    "public.ecr.aws/nginx/nginx:latest",
		"localhost/app:v1":              "localhost/app:v1",
		"localhost:5000/app":            "localhost:5000/app:latest",
		"GHCR.io/a/b":                   "ghcr.io/a/b:latest",
		"registry.example/app@" + dgst:  "registry.example/app@" + dgst,
		"registry.example/a:v1@" + dgst: "registry.example/a@" + dgst,
		"Busybox":                       "",
		"ghcr.io/":                      "",
		"ghcr.io/a?b=c:d":               "",
		"":                              "",
	} {
		img, err := name.ParseShortImage(short)
		if want == "" {
			if !errors.Is(err, name.ErrImage) {
				t.Errorf("%q is completed to %s, %v", short, img, err)
			}
			continue
		}
		if err != nil || img.String() != want {
			t.Errorf("%q is completed to %s, %v; want %s", short, img, err, want)
		}
	}
}

func TestErrorNamesTheText(t *testing.T) {
	_, err := name.ParseImage("ghcr.io/A")
	const want = `"ghcr.io/A" is not an image: <host>/<repository>:<tag> or <host>/<repository>@<digest> is needed`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A full name must consist of valid parts, and mean the same when it is printed
// and parsed again.
func FuzzParseImage(f *testing.F) {
	for _, s := range []string{"docker.io/library/busybox:1.36", "ghcr.io/a/b:v1@" + dgst, "[::1]:5000/app:v1", "busybox", "a/../b:c", "H:1/a.b__c---d:T"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (name.Image, error){name.ParseImage, name.ParseShortImage} {
			img, err := parse(s)
			if err != nil {
				if img != (name.Image{}) || !errors.Is(err, name.ErrImage) {
					t.Errorf("%q: %+v beside the error %v", s, img, err)
				}
				continue
			}
			host, ok := name.ParseHost(img.Host)
			if !ok || host != img.Host || !name.IsRepository(img.Repository) || (img.Tag == "") == (img.Digest == "") ||
				img.Tag != "" && !name.IsTag(img.Tag) || img.Digest != "" && img.Digest.Validate() != nil {
				t.Errorf("%q: %+v has an invalid part", s, img)
			}
			if again, err := name.ParseImage(img.String()); err != nil || again != img {
				t.Errorf("%q: %s is parsed as %+v, %v", s, img, again, err)
			}
		}
	})
}
