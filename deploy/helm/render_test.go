// Package helm has no code. Its tests check the chart in this folder against the Kubernetes API, Larder's configuration and
// Larder's command line.
package helm

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rendering is the output that Helm would send to a cluster.
type rendering struct {
	manifests []string // in installation order
	hooks     []string
	notes     string
}

// all returns the whole rendering as one text.
func (r rendering) all() string {
	return strings.Join(slices.Concat(r.manifests, r.hooks, []string{r.notes}), "\n---\n")
}

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir("larder")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render renders the chart with values in YAML, like "helm template" without a cluster.
func render(c *chart.Chart, values string) (rendering, error) {
	return renderFor(c, values, chartutil.DefaultCapabilities)
}

// renderFor is render for a cluster of some version.
func renderFor(c *chart.Chart, values string, cluster *chartutil.Capabilities) (rendering, error) {
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return rendering{}, err
	}
	release := chartutil.ReleaseOptions{Name: "larder", Namespace: "larder-system", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, given, release, cluster)
	if err != nil {
		return rendering{}, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return rendering{}, err
	}
	var r rendering
	maps.DeleteFunc(files, func(name, text string) bool {
		isNotes := strings.HasSuffix(name, "NOTES.txt")
		if isNotes {
			r.notes = text
		}
		return isNotes
	})
	hooks, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	for _, m := range manifests {
		r.manifests = append(r.manifests, m.Content)
	}
	for _, h := range hooks {
		r.hooks = append(r.hooks, h.Manifest)
	}
	return r, err
}

func mustRender(t *testing.T, values string) rendering {
	t.Helper()
	r, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// decode decodes a manifest into the Go type of its kind. Keys that the type does not have are an error.
func decode(manifest string) (any, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(manifest), &kind); err != nil {
		return nil, err
	}
	into, ok := map[metav1.TypeMeta]any{
		{APIVersion: "v1", Kind: "ConfigMap"}:                            new(corev1.ConfigMap),
		{APIVersion: "v1", Kind: "Namespace"}:                            new(corev1.Namespace),
		{APIVersion: "v1", Kind: "Pod"}:                                  new(corev1.Pod),
		{APIVersion: "v1", Kind: "Secret"}:                               new(corev1.Secret),
		{APIVersion: "v1", Kind: "Service"}:                              new(corev1.Service),
		{APIVersion: "v1", Kind: "ServiceAccount"}:                       new(corev1.ServiceAccount),
		{APIVersion: "apps/v1", Kind: "DaemonSet"}:                       new(appsv1.DaemonSet),
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:      new(networkingv1.NetworkPolicy),
		{APIVersion: "monitoring.coreos.com/v1", Kind: "ServiceMonitor"}: new(serviceMonitor),
		{APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule"}: new(prometheusRule),
	}[kind]
	if !ok {
		return nil, fmt.Errorf("the chart should not contain %s %s", kind.APIVersion, kind.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(manifest), into); err != nil {
		return nil, fmt.Errorf("%s: %w", kind.Kind, err)
	}
	return into, nil
}

// decodeAll decodes manifests. It fails the test if there are none.
func decodeAll(t *testing.T, manifests []string) []any {
	t.Helper()
	var objects []any
	for _, manifest := range manifests {
		object, err := decode(manifest)
		if err != nil {
			t.Error(err)
			continue
		}
		objects = append(objects, object)
	}
	if len(objects) == 0 {
		t.Fatal("nothing was rendered")
	}
	return objects
}

// find returns the only object of type T. It fails the test if there is not exactly one.
func find[T any](t *testing.T, manifests []string) *T {
	t.Helper()
	var found []*T
	for _, object := range decodeAll(t, manifests) {
		if o, ok := object.(*T); ok {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want 1", len(found), *new(T))
	}
	return found[0]
}

// serviceMonitor and prometheusRule have the fields that the chart uses of the types of Prometheus' operator
// (prometheus-operator.dev, API reference, monitoring.coreos.com/v1).
type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port        string `json:"port"`
			Path        string `json:"path"`
			Interval    string `json:"interval"`
			Relabelings []struct {
				SourceLabels []string `json:"sourceLabels"`
				TargetLabel  string   `json:"targetLabel"`
				Replacement  string   `json:"replacement"`
			} `json:"relabelings"`
			MetricRelabelings []struct {
				SourceLabels []string `json:"sourceLabels"`
				Regex        string   `json:"regex"`
				Action       string   `json:"action"`
			} `json:"metricRelabelings"`
		} `json:"endpoints"`
	} `json:"spec"`
}

type prometheusRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Groups []struct {
			Name     string `json:"name"`
			Interval string `json:"interval"`
			Rules    []struct {
				Record        string            `json:"record"`
				Alert         string            `json:"alert"`
				Expr          string            `json:"expr"`
				For           string            `json:"for"`
				KeepFiringFor string            `json:"keep_firing_for"`
				Labels        map[string]string `json:"labels"`
				Annotations   map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	} `json:"spec"`
}

// readFile returns the text of a file.
func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
