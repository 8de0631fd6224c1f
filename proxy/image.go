package proxy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// ErrImageName is the error for text that is not the full name of an image.
var ErrImageName = errors.New("not an image: <host>/<repository>:<tag> or <host>/<repository>@<digest> is needed")

// ParseImage parses the full name of an image. It adds no defaults, such as the host or
// the tag. The error wraps [ErrImageName].
func ParseImage(image string) (repo cache.Repository, reference string, err error) {
	name, reference, byDigest := strings.Cut(image, "@")
	valid := byDigest && digest.Digest(reference).Validate() == nil
	if i := strings.LastIndexByte(name, ':'); !byDigest && i >= 0 {
		name, reference = name[:i], name[i+1:]
		valid = isTag(reference)
	}
	host, rest, _ := strings.Cut(name, "/")
	if !valid || !isHost(host) || !isName(rest) || len(name) > maxName {
		return cache.Repository{}, "", fmt.Errorf("%q is %w", image, ErrImageName)
	}
	return cache.Repository{Upstream: strings.ToLower(host), Name: rest}, reference, nil
}
