package helm

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write ../manifests/larder.yaml anew")

// placeholder is no name that an image can have, so that a node which is to pull it says what is wrong.
const placeholder = "THE-REPOSITORY-OF-YOUR-LARDER-IMAGE"

const manifestsHead = `# Larder without Helm: what the chart in deploy/helm/larder renders by default, with a namespace in which pods may use the
# node's network and folders. The image must be yours:
#
#   sed s#` + placeholder + `#registry.example.com/larder# deploy/manifests/larder.yaml | kubectl apply -f -
#
# Written by "go test ./deploy/helm -run TestManifests -update"; change the chart instead.
apiVersion: v1
kind: Namespace
metadata:
  name: larder-system
  labels:
    pod-security.kubernetes.io/enforce: privileged
---
`

func TestManifestsAreWhatTheChartRenders(t *testing.T) {
	const path = "../manifests/larder.yaml"
	c := loadChart(t)
	r, err := render(c, onlyImage)
	if err != nil {
		t.Fatal(err)
	}
	text := manifestsHead + strings.Join(r.manifests, "\n---\n") + "\n"
	text = strings.ReplaceAll(text, "registry.example.com/larder:", placeholder+":")
	for _, ofHelm := range []string{"managed-by: Helm", "helm.sh/chart: "} { // Helm manages none of it
		var rest strings.Builder
		for line := range strings.Lines(text) {
			if !strings.Contains(line, ofHelm) {
				rest.WriteString(line)
			}
		}
		text = rest.String()
	}
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(readFile(t, path), text); diff != "" {
		t.Errorf("%s is not what the chart renders; run this test with -update (-there +rendered):\n%s", path, diff)
	}

	documents := strings.Split(text, "\n---\n")
	if n := len(decodeAll(t, documents)); n != len(r.manifests)+1 {
		t.Errorf("there are %d manifests, want %d", n, len(r.manifests)+1)
	}
	if namespace := find[corev1.Namespace](t, documents).Name; strings.Count(text, "  namespace: "+namespace+"\n") != len(r.manifests) {
		t.Errorf("not everything is in the namespace %s", namespace)
	}
	if want := "image: " + placeholder + ":"; !strings.Contains(text, want) || strings.Contains(text, "example.com/larder:") {
		t.Errorf("the images are not %s", placeholder)
	}
}
