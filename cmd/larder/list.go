package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
)

// readFile calls read with a file, or with standard input.
func readFile(p *invocation, path string, read func(io.Reader) ([]string, error)) ([]string, error) {
	in := p.stdin
	if path != standardStream {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	all, err := read(in)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return all, nil
}

// readList reads a list of images: see [bring.ReadList].
func readList(p *invocation, path string) ([]string, error) {
	return readFile(p, path, bring.ReadList)
}

// readKubernetes reads the images of all pod specs in Kubernetes manifests: YAML documents, or
// JSON. An image may be there several times.
func readKubernetes(p *invocation, path string) ([]string, error) {
	return readFile(p, path, imagesOfPods)
}

// errNoPods is the error for manifests without a pod spec, such as those of another tool.
var errNoPods = errors.New("no pod spec in it names an image")

func imagesOfPods(in io.Reader) ([]string, error) {
	var images []string
	for documents := yaml.NewDecoder(in); ; {
		var document any
		err := documents.Decode(&document)
		switch {
		case errors.Is(err, io.EOF) && images == nil:
			return nil, errNoPods
		case errors.Is(err, io.EOF):
			return images, nil
		case err != nil:
			return nil, err
		}
		images = appendImages(images, document)
	}
}

// appendImages appends the images of the pod specs in a value of a manifest, however deep they
// are: in a Deployment, in the template of a CronJob's Job, in the items of a List, and in
// resources of other kinds that contain pod specs.
func appendImages(images []string, value any) []string {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			images = appendImages(images, item)
		}
	case map[any]any: // of which a key is no text
		for _, key := range slices.SortedFunc(maps.Keys(v), func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
			images = appendImages(images, v[key])
		}
	case map[string]any:
		for _, key := range []string{"initContainers", "containers", "ephemeralContainers"} {
			list, _ := v[key].([]any)
			for _, item := range list {
				container, _ := item.(map[string]any)
				images = appendText(images, container["image"])
			}
		}
		volumes, _ := v["volumes"].([]any)
		for _, item := range volumes {
			volume, _ := item.(map[string]any)
			image, _ := volume["image"].(map[string]any) // a volume with the content of an image
			images = appendText(images, image["reference"])
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			images = appendImages(images, v[key])
		}
	}
	return images
}

// appendText appends a value if it is a text.
func appendText(all []string, value any) []string {
	if text, ok := value.(string); ok && text != "" {
		return append(all, text)
	}
	return all
}
