package distribution

import (
	"encoding/json"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// dockerTypes returns the OCI names of Docker's media types.
func dockerTypes() map[string]string {
	return map[string]string{
		dockerManifest: ocispec.MediaTypeImageManifest,
		"application/vnd.docker.container.image.v1+json":    ocispec.MediaTypeImageConfig,
		"application/vnd.docker.image.rootfs.diff.tar":      ocispec.MediaTypeImageLayer,
		"application/vnd.docker.image.rootfs.diff.tar.gzip": ocispec.MediaTypeImageLayerGzip,
	}
}

// convert returns a manifest as ECR sends it to a client that asks by tag. A client
// that accepts only the other one of the two forms of an image manifest gets it
// converted; the converted manifest has another digest, by which it cannot be pulled.
// Lists and indexes are not converted, nor are manifests whose two forms the client
// does not accept.
func convert(m registry.Manifest, accept []string) registry.Manifest {
	if accepts(accept, m.MediaType) {
		return m
	}
	var replace []string
	var to string
	switch {
	case m.MediaType == dockerManifest && accepts(accept, ocispec.MediaTypeImageManifest):
		to = ocispec.MediaTypeImageManifest
		for docker, oci := range dockerTypes() {
			replace = append(replace, `"`+docker+`"`, `"`+oci+`"`)
		}
	case m.MediaType == ocispec.MediaTypeImageManifest && accepts(accept, dockerManifest):
		to = dockerManifest
		for docker, oci := range dockerTypes() {
			replace = append(replace, `"`+oci+`"`, `"`+docker+`"`)
		}
	default:
		return m
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal([]byte(strings.NewReplacer(replace...).Replace(string(m.Raw))), &doc) != nil || doc == nil {
		return m
	}
	doc["mediaType"] = json.RawMessage(`"` + to + `"`) // an OCI manifest may leave it out
	raw, err := json.Marshal(doc)
	if err != nil {
		return m
	}
	return registry.NewManifest(to, raw)
}

// accepts reports whether Accept headers include a media type. Without any they
// include all.
func accepts(headers []string, mediaType string) bool {
	if len(headers) == 0 {
		return true
	}
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		name, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(name) {
		case mediaType, "*/*", "application/*":
			return true
		}
	}
	return false
}
