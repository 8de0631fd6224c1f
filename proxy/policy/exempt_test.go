package policy

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestOnlyWhatNoRuntimeCanRunIsExempt(t *testing.T) {
	const (
		imageConfig = "application/vnd.oci.image.config.v1+json"
		empty       = "application/vnd.oci.empty.v1+json"
		layer       = "application/vnd.oci.image.layer.v1.tar+gzip"
		simple      = "application/vnd.dev.cosign.simplesigning.v1+json"
		notation    = "application/vnd.cncf.notary.signature"
		jose        = "application/jose+json"
		bundle      = "application/vnd.dev.sigstore.bundle.v0.3+json"
	)
	text, binary := digest.FromString("text"), digest.FromString("binary")
	doc := func(artifactType, config, layerType string, blob digest.Digest) string {
		return `{"artifactType":"` + artifactType + `","config":{"mediaType":"` + config + `"},"layers":[{"mediaType":"` + layerType + `","digest":"` + blob.String() + `"}],"subject":{"digest":"` + text.String() + `"}}`
	}
	for what, test := range map[string]struct {
		document string
		exempt   bool
	}{
		"notation's signature":                               {doc("", notation, jose, text), true},
		"notation's signature with an empty config":          {doc(notation, empty, jose, text), true},
		"sigstore's bundle":                                  {doc(bundle, empty, bundle, text), true},
		"cosign's signature under its tag":                   {doc("", imageConfig, simple, text), true},
		"cosign's signature whose layer is no text":          {doc("", imageConfig, simple, binary), false},
		"an image with the artifact type of a signature":     {doc(notation, imageConfig, layer, binary), false},
		"the same with layers of a signature that are none":  {doc(notation, imageConfig, jose, binary), false},
		"an image layer in a signature":                      {doc(notation, empty, layer, binary), false},
		"an image with a subject":                            {doc("", imageConfig, layer, binary), false},
		"an artifact of another type":                        {doc("application/x-model", empty, "application/x-weights", binary), false},
		"a config that only Docker takes for one":            {doc(notation, "application/octet-stream", jose, binary), false},
		"an image without layers":                            {`{"config":{"mediaType":"` + imageConfig + `"},"layers":[]}`, false},
		"a signature whose layer is elsewhere":               {`{"artifactType":"` + notation + `","config":{"mediaType":"` + empty + `"},"layers":[{"mediaType":"` + jose + `","urls":["https://example.com"]}]}`, false},
		"an artifact manifest of ORAS":                       {`{"artifactType":"` + notation + `","blobs":[{"mediaType":"` + jose + `"}]}`, true},
		"an artifact manifest of another type, with no blob": {`{"artifactType":"application/x-model"}`, false},
	} {
		t.Run(what, func(t *testing.T) {
			r := rule(host + "/prod/*")
			r.Signed = new(condition) // which refuses
			p := newPolicy(t, Options{}, r)
			im := image(test.document, oci)
			d := decide(t, p, im, shelf{documents: map[digest.Digest]string{im.Digest: test.document}, text: map[digest.Digest]bool{text: true}})
			if d.Exempt != test.exempt || (d.Result == Allowed) != test.exempt {
				t.Errorf("got %s, exempt %v", d.Result, d.Exempt)
			}
		})
	}
}

func TestIndexIsExemptOnlyIfItListsOnlyAttachments(t *testing.T) {
	const (
		signature = `{"config":{"mediaType":"application/vnd.cncf.notary.signature"},"layers":[{"mediaType":"application/jose+json"}]}`
		runnable  = `{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar"}]}`
	)
	entry := func(document, more string) string {
		return `{"mediaType":"` + oci + `","artifactType":"application/vnd.cncf.notary.signature","digest":"` + digest.FromString(document).String() + `"` + more + `}`
	}
	for what, test := range map[string]struct {
		entries string
		exempt  bool
	}{
		"signatures":                 {entry(signature, ""), true},
		"an image that says it is":   {entry(signature, "") + "," + entry(runnable, ""), false},
		"a signature for a platform": {entry(signature, `,"platform":{"os":"linux","architecture":"amd64"}`), false},
		"an index in it":             {`{"mediaType":"` + index + `","digest":"` + digest.FromString(signature).String() + `"}`, false},
		"nothing":                    {"", false},
	} {
		t.Run(what, func(t *testing.T) {
			r := rule(host + "/prod/*")
			r.Signed = new(condition) // which refuses
			p := newPolicy(t, Options{}, r)
			document := `{"manifests":[` + test.entries + `]}`
			content := shelf{documents: map[digest.Digest]string{}}
			for _, text := range []string{document, signature, runnable} {
				content.documents[digest.FromString(text)] = text
			}
			if d := decide(t, p, image(document, index), content); d.Exempt != test.exempt || (d.Result == Allowed) != test.exempt {
				t.Errorf("got %s, exempt %v", d.Result, d.Exempt)
			}
		})
	}
}
