package helm

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

func TestLabelsAnnotationsAndContainersOfTheUser(t *testing.T) {
	r := mustRender(t, readFile(t, "testdata/full.yaml"))
	set := find[appsv1.DaemonSet](t, r.manifests)
	if set.Annotations["example.com/annotation"] != "of-the-set" {
		t.Errorf("annotations: %v", set.Annotations)
	}
	if n := set.Spec.RevisionHistoryLimit; n == nil || *n != 4 {
		t.Errorf("revisionHistoryLimit: %v", n)
	}
	containers := set.Spec.Template.Spec.Containers
	if last := containers[len(containers)-1]; last.Name != "beside" || last.Image != "registry.example.com/beside:v1" {
		t.Errorf("the last container is %+v", last)
	}
	if set.Spec.Template.Labels["example.com/team"] != "of-the-nodes" || set.Spec.Selector.MatchLabels["example.com/team"] != "" {
		t.Errorf("pods: %v, selector: %v", set.Spec.Template.Labels, set.Spec.Selector.MatchLabels)
	}
	for _, manifest := range append(r.manifests, r.hooks...) {
		var object struct {
			Kind     string
			Metadata struct {
				Name   string
				Labels map[string]string
			}
		}
		if err := yaml.Unmarshal([]byte(manifest), &object); err != nil {
			t.Fatal(err)
		}
		if object.Metadata.Labels["example.com/team"] != "of-the-nodes" {
			t.Errorf("%s %s has the labels %v", object.Kind, object.Metadata.Name, object.Metadata.Labels)
		}
	}
	if monitor := find[serviceMonitor](t, r.manifests); len(monitor.Spec.Endpoints[0].MetricRelabelings) != 1 || monitor.Spec.Endpoints[0].MetricRelabelings[0].Action != "drop" {
		t.Errorf("metricRelabelings: %+v", monitor.Spec.Endpoints)
	}
}
