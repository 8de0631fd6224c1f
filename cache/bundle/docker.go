package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// errDocker refuses what "docker save" made before Docker 25, and what "podman save" makes
// unless it is told otherwise.
var errDocker = errors.New("it is a Docker archive, not an OCI layout; convert each image of it: " +
	`skopeo copy docker-archive:FILE:NAME oci-archive:NEW:NAME (or save it again with "podman save --format oci-archive")`)

// isDocker reports whether only a Docker archive has a file or folder with this name.
func isDocker(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	first = strings.TrimSuffix(strings.TrimSuffix(first, ".tar"), ".json")
	return len(first) == 64 && strings.Trim(first, "0123456789abcdef") == ""
}

// savedImage is an element of a manifest.json, as Docker and containerd write it.
type savedImage struct {
	Config   blobPath
	RepoTags list[savedName]
	Layers   list[blobPath]
	// Parent and LayerSources are set by a Docker that stores layers unpacked and makes
	// manifests when it saves. One that stores images in containerd keeps the manifests of
	// the registry.
	Parent       string
	LayerSources *struct{}
}

func (s savedImage) check() error { return s.Config.check() }

type savedName string

func (n savedName) check() error { return checkName(string(n)) }

// blobPath is the name of the entry of a blob.
type blobPath string

func (p blobPath) check() error {
	switch _, isBlob, err := blobDigest(string(p)); {
	case err != nil:
		return err
	case !isBlob:
		return fmt.Errorf("%.100q is no blob", p)
	}
	return nil
}

func (p blobPath) digest() digest.Digest {
	d, _, _ := blobDigest(string(p))
	return d
}

func (l *Layout) readDocker(raw []byte) error {
	if raw == nil {
		return nil
	}
	var all list[savedImage]
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	l.docker, l.tags = make(map[digest.Digest]list[blobPath]), make(map[string]digest.Digest)
	for _, saved := range all {
		d := saved.Config.digest()
		if layers, ok := l.docker[d]; ok && !slices.Equal(layers, saved.Layers) {
			return fmt.Errorf("it has two lists of layers for config %s", d)
		}
		l.docker[d] = saved.Layers
		for _, name := range saved.RepoTags {
			l.tags[string(name)] = d
		}
		l.Rebuilt = l.Rebuilt || saved.LayerSources != nil || saved.Parent != ""
	}
	return nil
}

// compareDocker ensures that Docker would load the same image from manifest.json.
func (l *Layout) compareDocker(name string, r *reach) error {
	configs := make(map[digest.Digest]bool)
	for d := range r.mediaType {
		raw, err := r.manifest(d)
		if err != nil {
			return err
		}
		m, err := parseImage(raw)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", d, err)
		}
		configs[m.Config.Digest] = true
		layers, ok := l.docker[m.Config.Digest]
		if !ok {
			continue
		}
		same := slices.EqualFunc(layers, m.Layers, func(p blobPath, b imageBlob) bool { return p.digest() == b.Digest })
		if !same {
			return fmt.Errorf("manifest %s and Docker's %s have different layers; Docker 25 writes such archives: "+
				`copy the image from its registry, or with "skopeo copy docker-daemon:NAME oci-archive:FILE:NAME"`, d, dockerFile)
		}
	}
	if len(r.missing) > 0 {
		return nil
	}
	for tag, config := range l.tags {
		same := name == tag || name == "docker.io/"+tag || name == "docker.io/library/"+tag // Docker shortens names
		if same && !configs[config] {
			return fmt.Errorf("the name %s is that of another image in Docker's %s, with config %s", tag, dockerFile, config)
		}
	}
	return nil
}
