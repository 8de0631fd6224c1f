package name

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Image is the full name of an image.
type Image struct {
	Host       string // host[:port], as [ParseRegistry] returns it
	Repository string
	Tag        string        // "" if there is a digest
	Digest     digest.Digest // "" if there is a tag
}

// ErrImage is the error for a text that is not the name of an image.
var ErrImage = errors.New("not an image: <host>/<repository>:<tag> or <host>/<repository>@<digest> is needed")

// ParseImage parses the full name of an image: <host>/<repository>:<tag>, or
// @<digest>. If a name has both, only the digest is used, as clients do. The error
// is [ErrImage].
func ParseImage(s string) (Image, error) {
	ref, err := reference.Parse(s)
	if err != nil {
		return Image{}, notAnImage(s)
	}
	return newImage(ref, s)
}

// ParseShortImage parses the name of an image as Docker does: it completes
// busybox to docker.io/library/busybox:latest, and leaves full names as they are.
// The error is [ErrImage].
func ParseShortImage(s string) (Image, error) {
	ref, err := reference.ParseDockerRef(s)
	if err != nil {
		return Image{}, notAnImage(s)
	}
	img, err := newImage(ref, s)
	img.Repository = CompleteRepository(img.Host, img.Repository)
	return img, err
}

func newImage(ref reference.Reference, s string) (Image, error) {
	named, ok := ref.(reference.Named)
	if !ok {
		return Image{}, notAnImage(s)
	}
	host, ok := ParseRegistry(reference.Domain(named))
	img := Image{Host: host, Repository: reference.Path(named)}
	if digested, ok := ref.(reference.Digested); ok {
		img.Digest = digested.Digest()
	} else if tagged, ok := ref.(reference.Tagged); ok {
		img.Tag = tagged.Tag()
	}
	if !ok || !IsRepository(img.Repository) || img.Reference() == "" {
		return Image{}, notAnImage(s)
	}
	return img, nil
}

func notAnImage(s string) error { return fmt.Errorf("%q is %w", s, ErrImage) }

// Reference returns the digest, or else the tag.
func (i Image) Reference() string { return cmp.Or(i.Digest.String(), i.Tag) }

// String returns the name in the form that [ParseImage] parses.
func (i Image) String() string {
	if i.Digest != "" {
		return i.Host + "/" + i.Repository + "@" + i.Digest.String()
	}
	return i.Host + "/" + i.Repository + ":" + i.Tag
}
