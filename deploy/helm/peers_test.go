package helm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// peersOf returns config.peers as Larder reads the rendered configuration.
func peersOf(t *testing.T, r rendering) config.Peers {
	t.Helper()
	path := t.TempDir() + "/larder.yaml"
	if err := os.WriteFile(path, []byte(find[corev1.ConfigMap](t, r.manifests).Data["larder.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Peers
}

func TestPeersAreFoundUnderOneName(t *testing.T) {
	r := mustRender(t, onlyImage+"config: {peers: {}}\n")
	service := find[corev1.Service](t, r.manifests)
	if service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses {
		t.Errorf("the service is %+v", service)
	}
	want := fmt.Sprintf("%s.%s.svc:5003", service.Name, service.Namespace) // dns: is left out when it is read
	if got := peersOf(t, r).Join; !slices.Equal(got, []string{want}) {
		t.Errorf("the nodes join %q, want %q", got, want)
	}
	labels := find[appsv1.DaemonSet](t, r.manifests).Spec.Template.Labels
	for key, value := range service.Spec.Selector {
		if labels[key] != value {
			t.Errorf("the service selects %s=%s, and the pods have %q", key, value, labels[key])
		}
	}
	if len(service.Spec.Selector) == 0 {
		t.Error("the service selects nothing")
	}
	of := func(values string) []string { return peersOf(t, mustRender(t, onlyImage+values)).Join }
	if got := of("config: {peers: {listen: '0.0.0.0:7000'}}\n"); !strings.HasSuffix(got[0], ":7001") {
		t.Errorf("with another port, the nodes join %q", got)
	}
	if got := of("config: {peers: {join: ['10.0.0.1:5003']}}\n"); !slices.Equal(got, []string{"10.0.0.1:5003"}) {
		t.Errorf("with another name, the nodes join %q", got)
	}
}

// An upgrade finds the key that the cluster has, which needs a cluster. An uninstallation keeps it.
func TestChartMakesAKeyThatLarderReads(t *testing.T) {
	r := mustRender(t, onlyImage+"config: {peers: {}}\n")
	secret := find[corev1.Secret](t, r.manifests)
	if _, err := ring.ParseKeys(secret.Data["peers.key"]); err != nil {
		t.Errorf("the key cannot be read: %v", err)
	}
	if secret.Annotations["helm.sh/resource-policy"] != "keep" {
		t.Errorf("the annotations are %v", secret.Annotations)
	}
	if name, mounted := keyMount(t, r); name != secret.Name || mounted+"/peers.key" != peersOf(t, r).KeyFile {
		t.Errorf("the secret %s is mounted at %s, and %s is read", name, mounted, peersOf(t, r).KeyFile)
	}
	if other := mustRender(t, onlyImage+"config: {peers: {}}\n"); string(find[corev1.Secret](t, other.manifests).Data["peers.key"]) == string(secret.Data["peers.key"]) {
		t.Error("two clusters get the same key")
	}
}

// Without a key of the chart's own, it renders the same each time.
func TestKeyCanBeASecretOfTheOperators(t *testing.T) {
	const values = onlyImage + "config: {peers: {}}\npeers: {existingSecret: our-key}\n"
	r := mustRender(t, values)
	if name, _ := keyMount(t, r); name != "our-key" || strings.Contains(r.all(), "kind: Secret") {
		t.Errorf("the secret %q is mounted, in\n%s", name, r.all())
	}
	if r.all() != mustRender(t, values).all() {
		t.Error("two renderings differ")
	}
	own := mustRender(t, onlyImage+"config: {peers: {key_file: /etc/larder-keys/peers.key}}\n")
	if name, _ := keyMount(t, own); name != "" || strings.Contains(own.all(), "kind: Secret") {
		t.Errorf("with a key_file, the secret %q is mounted", name)
	}
}

// keyMount returns the secret that the daemon's container has in the folder of the key, and the folder; "" for none.
func keyMount(t *testing.T, r rendering) (secret, folder string) {
	t.Helper()
	pod := find[appsv1.DaemonSet](t, r.manifests).Spec.Template.Spec
	for _, v := range pod.Volumes {
		if v.Name != "peers" {
			continue
		}
		if mode := *v.Secret.DefaultMode; mode != 0o440 {
			t.Errorf("the key has the mode %o", mode)
		}
		for _, m := range pod.Containers[0].VolumeMounts {
			if m.Name == v.Name && m.ReadOnly {
				return v.Secret.SecretName, m.MountPath
			}
		}
		t.Error("the key is not mounted")
	}
	return "", ""
}

func TestZoneIsThatOfTheNodeWhereKubernetesTells(t *testing.T) {
	zone := func(minor, values string) string {
		cluster := *chartutil.DefaultCapabilities
		cluster.KubeVersion = chartutil.KubeVersion{Version: "v1." + minor + ".1-eks-1a2b3c", Major: "1", Minor: minor}
		r, err := renderFor(loadChart(t), onlyImage+values, &cluster)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range find[appsv1.DaemonSet](t, r.manifests).Spec.Template.Spec.Containers[0].Env {
			if v.Name == "LARDER_PEERS_ZONE" {
				return v.ValueFrom.FieldRef.FieldPath
			}
		}
		return ""
	}
	const label = "metadata.labels['topology.kubernetes.io/zone']"
	for _, test := range []struct{ minor, values, want string }{
		{"34", "config: {peers: {}}\n", ""},
		{"35", "config: {peers: {}}\n", label},
		{"36", "config: {peers: {upload: 1MB}}\n", label},
		{"35", "config: {peers: {zone: a}}\n", ""},
		{"35", "", ""},
	} {
		if got := zone(test.minor, test.values); got != test.want {
			t.Errorf("1.%s, %q: the zone is that of %q, want %q", test.minor, test.values, got, test.want)
		}
	}
}

func TestNetworkPolicyLetsPeersThrough(t *testing.T) {
	const enabled = "networkPolicy: {enabled: true, peers: [{ipBlock: {cidr: 10.1.0.0/16}}]}\n"
	r := mustRender(t, onlyImage+enabled+"config: {peers: {}}\n")
	rules := find[networkingv1.NetworkPolicy](t, r.manifests).Spec.Ingress
	if len(rules) != 1 || len(rules[0].From) != 2 || len(rules[0].Ports) != 3 {
		t.Fatalf("the rules are %+v", rules)
	}
	names := make(map[string]corev1.Protocol)
	for _, p := range find[appsv1.DaemonSet](t, r.manifests).Spec.Template.Spec.Containers[0].Ports {
		names[p.Name] = p.Protocol
		if p.Protocol == "" {
			names[p.Name] = corev1.ProtocolTCP
		}
	}
	for _, p := range rules[0].Ports {
		if names[p.Port.StrVal] != *p.Protocol {
			t.Errorf("the policy has %s over %s, and the pods have %v", p.Port.StrVal, *p.Protocol, names)
		}
	}
	if rules := find[networkingv1.NetworkPolicy](t, mustRender(t, onlyImage+enabled).manifests).Spec.Ingress; len(rules) > 0 {
		t.Errorf("without peers the rules are %+v", rules)
	}
}
