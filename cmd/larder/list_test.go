package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestImagesOfKubernetesManifests(t *testing.T) {
	const manifests = `
apiVersion: v1
kind: List
items:
- kind: Pod
  spec:
    initContainers: [{name: a, image: init:1}]
    containers: [{name: b, image: "registry.example/team/app@sha256:` + "0000000000000000000000000000000000000000000000000000000000000000" + `"}]
    ephemeralContainers: [{name: c, image: debug:2}]
    volumes:
    - {name: d, image: {reference: volume:3}}
    - {name: e, configMap: {name: other}}
  status:
    containerStatuses: [{image: status:4}]
---
# an empty document
---
kind: CronJob
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: cron:5}, {name: without}, text]}}}}}
---
{"kind": "Rollout", "spec": {"template": {"spec": {"containers": [{"image": "json:6"}, {"image": 7}]}}}}
`
	got, err := imagesOfPods(strings.NewReader(manifests))
	want := []string{
		"init:1", "registry.example/team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		"debug:2", "volume:3", "cron:5", "json:6",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("images %q, %v; want %q", got, err, want)
	}
}

func TestListOfWindowsIsRead(t *testing.T) {
	list := filepath.Join(t.TempDir(), "images.txt")
	if err := os.WriteFile(list, []byte("\ufeffa:1 # ours\r\n\r\n# none\r\nb:2\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readList(&invocation{}, list); err != nil || !slices.Equal(got, []string{"a:1", "b:2"}) {
		t.Errorf("images %q, %v", got, err)
	}
}

func TestManifestsWithoutPodsAreAnError(t *testing.T) {
	for _, text := range []string{"", "kind: Service\n", "just a text", "a: [", "containers: {image: a}"} {
		if got, err := imagesOfPods(strings.NewReader(text)); err == nil {
			t.Errorf("%q: images %q", text, got)
		}
	}
}

func TestListHasOneImageALine(t *testing.T) {
	const list = "# all of ours\nredis:7\n\n  nginx:1.27 # the front\r\n#\n"
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, "-"} {
		got, err := readList(&invocation{stdin: strings.NewReader(list)}, name)
		if want := []string{"redis:7", "nginx:1.27"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := readList(new(invocation), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a list that does not exist is read")
	}
}
