package helm

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/lifecycle"
)

// onlyImage is the only value that must be set.
const onlyImage = "image: {repository: registry.example.com/larder}\n"

func TestChartRendersWithOnlyTheImageSet(t *testing.T) {
	r := mustRender(t, onlyImage)
	var kinds []string
	for _, object := range decodeAll(t, r.manifests) {
		kinds = append(kinds, fmt.Sprintf("%T", object))
	}
	if diff := cmp.Diff([]string{"*v1.ServiceAccount", "*v1.ConfigMap", "*v1.DaemonSet"}, kinds); diff != "" {
		t.Errorf("rendered kinds (-want +got):\n%s", diff)
	}
	if pod := find[corev1.Pod](t, r.hooks); pod.Annotations["helm.sh/hook"] != "test" {
		t.Errorf("the hook is %q, want test", pod.Annotations["helm.sh/hook"])
	}
}

func TestChartRendersWithEveryValueSet(t *testing.T) {
	full := readFile(t, "testdata/full.yaml")
	r := mustRender(t, full)
	if n := len(decodeAll(t, r.manifests)); n != 9 {
		t.Errorf("%d manifests, want 9", n)
	}
	decodeAll(t, r.hooks)

	var values, defaults map[string]any
	for text, into := range map[string]any{full: &values, readFile(t, "larder/values.yaml"): &defaults} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range schemaPaths(t) {
		if !has(defaults, path) {
			t.Errorf("values.yaml does not document %s", strings.Join(path, "."))
		}
		if !has(values, path) {
			t.Errorf("testdata/full.yaml does not set %s", strings.Join(path, "."))
		}
	}
	delete(values["image"].(map[string]any), "tag")               // the digest overrides it
	delete(values["mirror"].(map[string]any), "containerdSocket") // not used with a version
	for _, text := range texts(values) {
		if !strings.Contains(r.all(), text) {
			t.Errorf("the value %q does not appear in the rendered chart", text)
		}
	}
}

// schemaPaths returns the paths of all values in the schema, except those below config and those of parent charts.
func schemaPaths(t *testing.T) [][]string {
	t.Helper()
	type node struct {
		Properties map[string]*node
	}
	var schema node
	if err := json.Unmarshal([]byte(readFile(t, "larder/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global")
	schema.Properties["config"] = new(node)
	var paths [][]string
	var walk func(path []string, n *node)
	walk = func(path []string, n *node) {
		if n == nil || len(n.Properties) == 0 {
			paths = append(paths, path)
			return
		}
		for name, below := range n.Properties {
			walk(append(slices.Clone(path), name), below)
		}
	}
	walk(nil, &schema)
	// These have the free form of a pod's fields.
	return slices.DeleteFunc(paths, func(path []string) bool {
		return slices.Contains([]string{"seLinuxOptions", "affinity"}, path[0])
	})
}

func has(values map[string]any, path []string) bool {
	below, ok := values[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	object, ok := below.(map[string]any)
	return ok && has(object, path[1:])
}

// texts returns all strings in a value.
func texts(value any) []string {
	var found []string
	switch v := value.(type) {
	case string:
		found = append(found, v)
	case []any:
		for _, item := range v {
			found = append(found, texts(item)...)
		}
	case map[string]any:
		for item := range maps.Values(v) {
			found = append(found, texts(item)...)
		}
	}
	return found
}

func TestChartRefusesWrongValuesByName(t *testing.T) {
	for _, test := range []struct{ name, values, want string }{
		{"no image", "{}", "image.repository is not set, and has no default"},
		{"a tag in the repository", "image: {repository: example.com/larder:1.0}", "/image/repository"},
		{"an unknown value", onlyImage + "podAnotations: {}", "additional properties 'podAnotations' not allowed"},
		{"an unknown value below another", onlyImage + "mirror: {enable: false}", "'/mirror': additional properties 'enable' not allowed"},
		{"an unknown key of the configuration", onlyImage + "config: {upstream: []}", "'/config': additional properties 'upstream' not allowed"},
		{"a policy that covers Larder's own image", onlyImage + "config: {policy: [{match: '*.*/open/*', mode: enforce, age: 1h}, {match: '*/*', mode: enforce, age: 1h}]}", "the rule for */* covers Larder's own image"},
		{"no configuration", onlyImage + "config: null", "missing property 'config'"},
		{"an address without a port", onlyImage + "config: {listen: 127.0.0.1}", "/config/listen"},
		{"the root folder as the cache", onlyImage + "config: {cache: {dir: /}}", "/config/cache/dir"},
		{"a folder that leads elsewhere", onlyImage + "config: {cache: {dir: /var/lib/../..}}", "/config/cache/dir"},
		{"a relative folder", onlyImage + "mirror: {containerdDir: certs.d}", "/mirror/containerdDir"},
		{"a number for a version", onlyImage + "mirror: {containerdVersion: 2.1}", "/mirror/containerdVersion"},
		{"a URL for a registry", onlyImage + "mirror: {registries: ['https://quay.io']}", "/mirror/registries/0"},
		{"root as the daemon's user", onlyImage + "runAs: {user: 0}", "/runAs/user"},
		{"two pods on one node", onlyImage + "updateStrategy: {rollingUpdate: {maxSurge: 1}}", "'/updateStrategy/rollingUpdate': additional properties 'maxSurge' not allowed"},
		{"a grace period shorter than the drain", onlyImage + "terminationGracePeriodSeconds: 5", "/terminationGracePeriodSeconds"},
		{"a variable that the chart sets", onlyImage + "env: [{name: LARDER_CACHE_DIR, value: /tmp}]", "/env/0/name"},
		{"a volume that the chart has", onlyImage + "volumes: [{name: cache, emptyDir: {}}]", "/volumes/0/name"},
		{"a string for a boolean", onlyImage + "serviceMonitor: {enabled: 'yes'}", "/serviceMonitor/enabled"},
		{"metrics on loopback", onlyImage + "serviceMonitor: {enabled: true}", "Prometheus cannot reach config.admin, which is 127.0.0.1:5001: set it to 0.0.0.0:5001"},
		{"metrics without an admin listener", onlyImage + "serviceMonitor: {enabled: true}\nconfig: {admin: ''}", `there are no metrics, because config.admin is ""`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := render(loadChart(t), test.values)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that contains %q", err, test.want)
			}
		})
	}
}

func TestConfigMapIsAValidConfiguration(t *testing.T) {
	for name, values := range map[string]string{
		"the defaults": onlyImage,
		"every value":  readFile(t, "testdata/full.yaml"),
	} {
		t.Run(name, func(t *testing.T) {
			c := find[corev1.ConfigMap](t, withoutDashboard(mustRender(t, values).manifests))
			if _, err := config.Load(write(t, c.Data["larder.yaml"])); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSchemaHasTheKeysOfTheConfiguration compares the schema with Larder. A key that only the schema accepts would stop
// every new pod.
func TestSchemaHasTheKeysOfTheConfiguration(t *testing.T) {
	_, err := config.Load(write(t, "no-such-key: 1\n"))
	if err == nil {
		t.Fatal("Larder accepts an unknown key")
	}
	_, list, _ := strings.Cut(err.Error(), "expected ")
	want := regexp.MustCompile(`, | or `).Split(list, -1)
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "larder/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(schema.Properties.Config.Properties))); diff != "" {
		t.Errorf("keys of config (-Larder +schema):\n%s", diff)
	}
}

func TestConfigurationReachesLarderUnchanged(t *testing.T) {
	given := strings.Replace(readFile(t, "../../config/testdata/full.yaml"), "dir: cache\n", "dir: /mnt/larder\n", 1)
	given = strings.ReplaceAll(given, " secrets/", " /etc/larder-secrets/")
	given = strings.ReplaceAll(given, " tls/", " /etc/larder-tls/")
	given = strings.NewReplacer("keys/site.pub", "/etc/larder-keys/site.pub", "file: images.txt", "file: /etc/larder/images.txt").Replace(given)
	policy, err := filepath.Abs("../../config/testdata/policy") // a policy's files must be readable
	if err != nil {
		t.Fatal(err)
	}
	given = strings.NewReplacer(" policy/", " "+policy+"/", "[policy/", "["+policy+"/").Replace(given)
	given = strings.Replace(given, "2026-01-01, yes]", "'2026-01-01', 'yes']", 1) // Helm parses YAML 1.1
	values := onlyImage + "config:\n  " + strings.ReplaceAll(given, "\n", "\n  ")
	c := find[corev1.ConfigMap](t, mustRender(t, values).manifests)
	want, err := config.Load(write(t, given))
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(write(t, c.Data["larder.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	samePolicy := cmp.Comparer(func(a, b lifecycle.Policy) bool { return reflect.DeepEqual(a, b) })
	if diff := cmp.Diff(want, got, samePolicy, cmpopts.IgnoreFields(config.Config{}, "Warnings")); diff != "" {
		t.Errorf("configuration (-given +rendered):\n%s", diff)
	}
}

func equalJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && cmp.Equal(x, y)
}

// withoutDashboard removes the dashboard's ConfigMap, so that one ConfigMap remains.
func withoutDashboard(manifests []string) []string {
	return slices.DeleteFunc(manifests, func(m string) bool { return strings.Contains(m, "-dashboard\n") })
}

// write writes a temporary file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "larder.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPodsAreReplacedWhenTheConfigurationChanges(t *testing.T) {
	annotation := func(values string) string {
		return find[appsv1.DaemonSet](t, mustRender(t, values).manifests).Spec.Template.Annotations["checksum/config"]
	}
	if before, after := annotation(onlyImage), annotation(onlyImage+"config: {tags: {ttl: 5m}}"); before == after {
		t.Errorf("the annotation is %q before and after", before)
	}
}

func TestContainersAreConfined(t *testing.T) {
	r := mustRender(t, onlyImage)
	pod := find[appsv1.DaemonSet](t, r.manifests).Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || *pod.AutomountServiceAccountToken {
		t.Error("the pod should use the node's network, but not its processes, and have no service account token")
	}
	if pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Error("the pod has no seccomp profile")
	}
	asRoot := map[string][]corev1.Capability{
		"prepare": {"CHOWN", "DAC_OVERRIDE", "FOWNER"}, "mirror": nil, "keeper": nil, "mirror-check": nil,
	}
	seen := make(map[string]bool)
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers, find[corev1.Pod](t, r.hooks).Spec.Containers) {
		if seen[c.Name] {
			t.Errorf("two containers are called %s", c.Name)
		}
		seen[c.Name] = true
		s := c.SecurityContext
		if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Privileged != nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s is not confined: %+v", c.Name, s)
		}
		added, mayBeRoot := asRoot[c.Name]
		if *s.RunAsNonRoot == mayBeRoot || (*s.RunAsUser == 0) != mayBeRoot || !slices.Equal(s.Capabilities.Add, added) {
			t.Errorf("%s runs as %d with %v, want root: %t, with %v", c.Name, *s.RunAsUser, s.Capabilities.Add, mayBeRoot, added)
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has no memory request or no limit: %v", c.Name, c.Resources)
		}
		if c.Image != "registry.example.com/larder:0.1.0" {
			t.Errorf("%s has the image %s", c.Name, c.Image)
		}
	}
}

// The key of access: client and the audit outlive the pods.
func TestFoldersOfTheNodeArePreparedAndMounted(t *testing.T) {
	pod := find[appsv1.DaemonSet](t, mustRender(t, onlyImage+"folders: [/var/lib/larder-access, /var/log/larder]").manifests).Spec.Template.Spec
	prepare := pod.InitContainers[slices.IndexFunc(pod.InitContainers, func(c corev1.Container) bool { return c.Name == "prepare" })]
	for _, folder := range []string{"/var/lib/larder-access", "/var/log/larder"} {
		if !slices.Contains(prepare.Args, "--folder="+folder) {
			t.Errorf("prepare is run with %q, without %s", prepare.Args, folder)
		}
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == folder })
		if i < 0 {
			t.Fatalf("%s is not a volume", folder)
		}
		for _, c := range []corev1.Container{prepare, pod.Containers[0]} {
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.Name == pod.Volumes[i].Name && m.MountPath == folder && !m.ReadOnly
			}) {
				t.Errorf("%s is not mounted in %s", folder, c.Name)
			}
		}
	}
}

// containerd and larder mirror read the same files.
func TestMirrorHasTheFilesThatTLSAndPasswordsNeed(t *testing.T) {
	pod := find[appsv1.DaemonSet](t, mustRender(t, onlyImage+"mirror: {filesDir: /etc/larder-node, ca: ca.pem, credentials: password}").manifests).Spec.Template.Spec
	mirror := pod.InitContainers[slices.IndexFunc(pod.InitContainers, func(c corev1.Container) bool { return c.Name == "mirror" })]
	for _, want := range []string{"--ca=/etc/larder-node/ca.pem", "--credentials=/etc/larder-node/password"} {
		if !slices.Contains(mirror.Args, want) {
			t.Errorf("mirror is run with %q, without %s", mirror.Args, want)
		}
	}
	if slices.ContainsFunc(mirror.Args, func(arg string) bool { return strings.HasPrefix(arg, "--client") }) {
		t.Errorf("mirror is run with %q, for a certificate that was not named", mirror.Args)
	}
	for _, c := range append(pod.Containers[1:], mirror) { // the keeper checks with them
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/larder-node" && m.ReadOnly }) {
			t.Errorf("the folder is not mounted in %s: %+v", c.Name, c.VolumeMounts)
		}
	}
}

// Access to containerd's socket is equivalent to root on the node.
func TestContainerdSocketIsMountedOnlyWhereItIsUsed(t *testing.T) {
	for _, test := range []struct {
		values string
		want   []string
	}{
		{"{}", []string{"init mirror"}},
		{"{watch: true}", []string{"init mirror", "keeper"}},
		{"{watch: true, containerdVersion: '2.2'}", nil},
		{"{enabled: false}", nil},
	} {
		pod := find[appsv1.DaemonSet](t, mustRender(t, onlyImage+"mirror: "+test.values).manifests).Spec.Template.Spec
		var got []string
		for prefix, containers := range map[string][]corev1.Container{"init ": pod.InitContainers, "": pod.Containers} {
			for _, c := range containers {
				if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "containerd" }) {
					got = append(got, prefix+c.Name)
				}
			}
		}
		slices.Sort(got)
		isVolume := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "containerd" })
		if !slices.Equal(got, test.want) || isVolume != (test.want != nil) {
			t.Errorf("mirror: %s: the socket is mounted in %q, want %q; there is a volume: %t", test.values, got, test.want, isVolume)
		}
	}
}

// A DaemonSet adopts every pod that its selector matches.
func TestDaemonSetDoesNotAdoptTheTestPod(t *testing.T) {
	r := mustRender(t, onlyImage)
	labels := find[corev1.Pod](t, r.hooks).Labels
	selector := find[appsv1.DaemonSet](t, r.manifests).Spec.Selector.MatchLabels
	for key, value := range selector {
		if labels[key] != value {
			return
		}
	}
	t.Errorf("the DaemonSet's selector %v matches the test pod's labels %v", selector, labels)
}

func TestProbesFollowTheListeners(t *testing.T) {
	for _, test := range []struct{ config, want string }{
		{"{}", "127.0.0.1:5001/readyz"},
		{"{admin: '0.0.0.0:6001'}", "127.0.0.1:6001/readyz"},
		{"{admin: ':6001'}", "127.0.0.1:6001/readyz"},
		{"{admin: '[::1]:6001'}", "::1:6001/readyz"},
		{"{admin: ''}", "127.0.0.1:5000/v2/"},
	} {
		pod := find[appsv1.DaemonSet](t, mustRender(t, onlyImage+"config: "+test.config).manifests).Spec.Template.Spec
		get := pod.Containers[0].ReadinessProbe.HTTPGet
		if got := fmt.Sprintf("%s:%s%s", get.Host, get.Port.String(), get.Path); got != test.want {
			t.Errorf("config: %s: the probe is %s, want %s", test.config, got, test.want)
		}
	}
}

func TestRulesAndDashboardAreRenderedFromTheirFiles(t *testing.T) {
	manifests := mustRender(t, onlyImage+"prometheusRule: {enabled: true}\ndashboard: {enabled: true}\n").manifests
	var rules struct{ Groups []any }
	if err := yaml.Unmarshal([]byte(readFile(t, "larder/alerts/larder.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	if got, want := len(find[prometheusRule](t, manifests).Spec.Groups), len(rules.Groups); got != want || got == 0 {
		t.Errorf("%d groups of rules, want %d", got, want)
	}
	dashboards := slices.DeleteFunc(manifests, func(m string) bool { return !strings.Contains(m, "-dashboard\n") })
	if got, want := find[corev1.ConfigMap](t, dashboards).Data["larder.json"], readFile(t, "larder/dashboards/larder.json"); !equalJSON(got, want) {
		t.Errorf("the dashboard is %s, want %s", got, want)
	}
}

// TestDocumentedValuesExist checks the values that the documents set with --set.
func TestDocumentedValuesExist(t *testing.T) {
	var defaults map[string]any
	if err := yaml.Unmarshal([]byte(readFile(t, "larder/values.yaml")), &defaults); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range []string{"../OPERATIONS.md", "../docs/platforms.md", "../docs/proxies.md", "../../README.md"} {
		for _, m := range regexp.MustCompile(`--set ([A-Za-z.]+?)(?:\.'[^']*')?=`).FindAllStringSubmatch(readFile(t, name), -1) {
			found++
			if !has(defaults, strings.Split(m[1], ".")) {
				t.Errorf("%s sets %s, which the chart does not have", name, m[1])
			}
		}
	}
	if found < 4 {
		t.Errorf("found only %d values", found)
	}
}

// TestEveryAlertIsExplained checks that each alert has a section in OPERATIONS.md.
func TestEveryAlertIsExplained(t *testing.T) {
	operations := readFile(t, "../OPERATIONS.md")
	rule := find[prometheusRule](t, mustRender(t, onlyImage+"prometheusRule: {enabled: true}").manifests)
	for _, group := range rule.Spec.Groups {
		for _, r := range group.Rules {
			if r.Alert != "" && !strings.Contains(operations, "\n### "+r.Alert+"\n") {
				t.Errorf("deploy/OPERATIONS.md has no section %s", r.Alert)
			}
		}
	}
}

// The alert LarderDown selects the job of "up". Without a relabeling, Prometheus' operator names the job after the
// Service.
func TestScrapeJobIsTheOneThatAlertsSelect(t *testing.T) {
	r := mustRender(t, readFile(t, "testdata/full.yaml"))
	for _, relabeling := range find[serviceMonitor](t, r.manifests).Spec.Endpoints[0].Relabelings {
		if relabeling.TargetLabel == "job" && relabeling.Replacement == "larder" {
			return
		}
	}
	t.Error("no relabeling sets the job to larder")
}
