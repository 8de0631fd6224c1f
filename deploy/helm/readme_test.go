package helm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// readmeFile is generated from values.yaml and values.schema.json.
const readmeFile = "larder/README.md"

func TestReadmeIsThatOfTheValues(t *testing.T) {
	want := readme(t)
	if *update {
		if err := os.WriteFile(readmeFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, readFile(t, readmeFile)); diff != "" {
		t.Errorf("%s is not current; run go test ./deploy/helm -run TestReadme -update (-want +got):\n%s", readmeFile, diff)
	}
}

func TestAnnotationsForArtifactHubAreValid(t *testing.T) {
	annotations := loadChart(t).Metadata.Annotations
	var links []struct{ Name, URL string }
	if err := yaml.Unmarshal([]byte(annotations["artifacthub.io/links"]), &links); err != nil || len(links) == 0 {
		t.Errorf("links: %v, %v", links, err)
	}
	for _, link := range links {
		_, file, ok := strings.Cut(link.URL, "/blob/main/")
		if _, err := os.Stat("../../" + file); !ok || err != nil {
			t.Errorf("%s names %s: %v", link.Name, link.URL, err)
		}
	}
	if annotations["artifacthub.io/license"] != "Apache-2.0" || annotations["artifacthub.io/operator"] != "false" {
		t.Errorf("%v", annotations)
	}
}

// schema is a part of values.schema.json.
type schema struct {
	Type       any               `json:"type"`
	Ref        string            `json:"$ref"`
	Enum       []any             `json:"enum"`
	Properties map[string]schema `json:"properties"`
}

// kind is how the table calls the values that a schema accepts.
func (s schema) kind(value *yaml.Node) string {
	switch types, several := s.Type.([]any); {
	case strings.HasSuffix(s.Ref, "/texts"):
		return "map of strings"
	case len(s.Enum) > 0:
		var all []string
		for _, one := range s.Enum {
			all = append(all, fmt.Sprintf("`%v`", one))
		}
		return strings.Join(all, ", ")
	case several:
		return strings.Trim(fmt.Sprint(types), "[]")
	case s.Type == nil:
		return map[string]string{"!!int": "integer", "!!map": "object", "!!str": "string"}[value.ShortTag()]
	default:
		return fmt.Sprint(s.Type)
	}
}

// readme renders the chart's README.
func readme(t *testing.T) string {
	t.Helper()
	var root schema
	if err := json.Unmarshal([]byte(readFile(t, "larder/values.schema.json")), &root); err != nil {
		t.Fatal(err)
	}
	var values yaml.Node
	if err := yaml.Unmarshal([]byte(readFile(t, "larder/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	meta := loadChart(t).Metadata
	var b bytes.Buffer
	fmt.Fprintf(&b, `# The chart of Larder

%s. The chart runs it on every node of a cluster, and makes the node's containerd pull through it.

    helm -n larder-system upgrade --install larder deploy/helm/larder --set image.repository=<yours>

Kubernetes %s. [OPERATIONS.md](../../OPERATIONS.md) says how to install it on each kind of cluster, how to
upgrade it and how to leave; [configuration.md](../../docs/configuration.md) has the keys of `+"`config`"+`.

This file is generated from values.yaml and values.schema.json:

    go test ./deploy/helm -run TestReadme -update

| value | type | default | |
|---|---|---|---|
`, meta.Description, strings.TrimSuffix(strings.TrimPrefix(meta.KubeVersion, ">="), ".0-0")+" or later")
	table(t, &b, "", values.Content[0], root)
	return b.String()
}

// table adds a row for each value at and below a key.
func table(t *testing.T, b *bytes.Buffer, above string, values *yaml.Node, s schema) {
	t.Helper()
	for i := 0; i < len(values.Content); i += 2 {
		name, value := values.Content[i], values.Content[i+1]
		key, of := strings.TrimPrefix(above+"."+name.Value, "."), s.Properties[name.Value]
		text := cellText(name.HeadComment)
		if key == "config" { // which has a document of its own
			fmt.Fprintf(b, "| `config` | object | as in values.yaml | %s |\n", text)
			continue
		}
		if value.Kind == yaml.MappingNode && len(of.Properties) > 0 && len(value.Content) > 0 {
			if text != "" {
				fmt.Fprintf(b, "| `%s` | | | %s |\n", key, text)
			}
			table(t, b, key, value, of)
			continue
		}
		if text == "" {
			text = cellText(value.LineComment)
		}
		fmt.Fprintf(b, "| `%s` | %s | `%s` | %s |\n", key, of.kind(value), inline(t, value), text)
	}
}

// cellText returns a comment as the text of a table's cell. What comes before an empty line is about the file.
func cellText(comment string) string {
	paragraphs := strings.Split(comment, "\n\n")
	var words []string
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		words = append(words, strings.TrimSpace(strings.TrimPrefix(line, "#")))
	}
	return strings.ReplaceAll(strings.Join(words, " "), "|", `\|`)
}

// inline returns a value on one line.
func inline(t *testing.T, value *yaml.Node) string {
	t.Helper()
	var plain any
	if err := value.Decode(&plain); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "|", `\|`)
}
