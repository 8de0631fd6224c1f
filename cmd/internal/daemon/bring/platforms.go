package bring

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// All is the name of all platforms of an index for [ParsePlatforms].
const All = "all"

// Platforms are those that are wanted of an index. The zero value is none.
type Platforms struct {
	all    bool
	wanted []ocispec.Platform
}

// ParsePlatforms parses platforms such as linux/arm64, or [All]. Without any, the platform of
// this machine is wanted.
func ParsePlatforms(texts []string) (Platforms, error) {
	if len(texts) == 0 {
		return Platforms{wanted: []ocispec.Platform{platforms.DefaultSpec()}}, nil
	}
	var p Platforms
	for _, text := range texts {
		if text == All {
			p.all = true
			continue
		}
		parsed, err := platforms.Parse(text)
		if err != nil {
			return Platforms{}, fmt.Errorf("%q is not a platform such as linux/arm64, nor %q: %w", text, All, err)
		}
		p.wanted = append(p.wanted, parsed)
	}
	return p, nil
}

// choose returns the digests of those images of an index that match the platforms. The error names
// a platform for which there is none; an index without platforms has no error.
func (p Platforms) choose(images []ocispec.Descriptor) (map[digest.Digest]bool, error) {
	chosen := make(map[digest.Digest]bool)
	if p.all {
		for _, image := range images {
			chosen[image.Digest] = true
		}
		return chosen, nil
	}
	for _, want := range p.wanted {
		found := matching(images, want)
		if len(found) == 0 && len(images) > 0 {
			return nil, fmt.Errorf("it has no platform %s; it has %s", platforms.Format(want), strings.Join(namesOf(images), ", "))
		}
		for _, image := range found {
			chosen[image.Digest] = true
		}
	}
	return chosen, nil
}

// matching returns the images of just a platform, or else the one that a machine of that platform would run.
func matching(images []ocispec.Descriptor, want ocispec.Platform) []ocispec.Descriptor {
	var all, best []ocispec.Descriptor
	exact, usable := platforms.NewMatcher(want), platforms.Only(want)
	for _, image := range images {
		if exact.Match(*image.Platform) {
			all = append(all, image)
		}
		if usable.Match(*image.Platform) && (best == nil || usable.Less(*image.Platform, *best[0].Platform)) {
			best = []ocispec.Descriptor{image}
		}
	}
	if all != nil {
		return all
	}
	return best
}

func namesOf(images []ocispec.Descriptor) []string {
	var all []string
	for _, image := range images {
		if text := platforms.Format(*image.Platform); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}
