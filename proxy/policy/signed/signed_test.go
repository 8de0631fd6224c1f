package signed_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/signed"
)

const (
	notationType = "application/vnd.cncf.notary.signature"
	bundleType   = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// errUpstream is the failure of an upstream.
var errUpstream = errors.New("429: too many requests")

// keyCondition trusts the key of the fixtures.
func keyCondition(t *testing.T, opts signed.Options) *signed.Condition {
	t.Helper()
	opts.Cosign = &signed.Cosign{Keys: []string{filepath.Join("testdata", "cosign", "right.pub")}}
	return newCondition(t, opts)
}

func TestAFailingUpstreamIsNeverUnsigned(t *testing.T) {
	for tag, want := range map[string]map[string]bool{ // what fails: whether it holds all the same
		"right":     {"referrers": false, "blob": false, ".sig": true},
		"right-tag": {"referrers": true, "blob": false, ".sig": false},
		"wrong":     {"referrers": false, "blob": false, ".sig": false},
		"unsigned":  {"referrers": false, ".sig": false},
	} {
		for failing, holds := range want {
			t.Run(tag+"/"+failing, func(t *testing.T) {
				content := readFixture(t, "cosign")
				content.fail = func(asked string) error {
					if strings.HasSuffix(asked, failing) {
						return errUpstream
					}
					return nil
				}
				got, err := keyCondition(t, signed.Options{Content: content}).Evaluate(t.Context(), content.image(t, tag))
				if got.Holds != holds || (err == nil) != holds {
					t.Errorf("got %+v, %v", got, err)
				}
				if !holds && !errors.Is(err, errUpstream) {
					t.Errorf("the error is %v", err)
				}
			})
		}
	}
}

func TestADecisionEndsInTime(t *testing.T) {
	content := readFixture(t, "cosign")
	image := content.image(t, "right")
	condition := keyCondition(t, signed.Options{Content: content})
	synctest.Test(t, func(t *testing.T) {
		content.block = func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		began := time.Now()
		got, err := condition.Evaluate(t.Context(), image)
		if err == nil || got.Holds || !strings.Contains(err.Error(), "not read in time") {
			t.Errorf("got %+v, %v", got, err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestAnswersSayHowLongTheyCount(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	cosigned := readFixture(t, "cosign")
	keyed := keyCondition(t, signed.Options{Content: cosigned, Now: clock})
	folder := filepath.Join("testdata", "notation")
	notated := readFixture(t, "notation")
	by := newCondition(t, signed.Options{
		Content: notated, HTTP: &http.Client{Transport: &responder{by: readAuthority(t, folder)}}, Now: clock,
		Notation: &signed.Notation{TrustPolicy: filepath.Join(folder, "trustpolicy.json"), TrustStore: filepath.Join(folder, "truststore")},
	})
	for name, c := range map[string]struct {
		condition *signed.Condition
		image     policy.Image
		want      func(time.Time) bool
	}{
		"a key's signature counts for ever":               {keyed, cosigned.image(t, "right"), time.Time.IsZero},
		"a refusal counts for a minute":                   {keyed, cosigned.image(t, "wrong"), now.Add(time.Minute).Equal},
		"a certificate's signature counts until its end":  {by, notated.image(t, "right"), now.Add(24 * 365 * time.Hour).Before},
		"a certificate that was not revoked counts a day": {by, notated.image(t, "checked"), now.Add(24 * time.Hour).Equal},
	} {
		got, err := c.condition.Evaluate(t.Context(), c.image)
		if err != nil || !c.want(got.Until) {
			t.Errorf("%s: until %s, %v", name, got.Until, err)
		}
	}
}

func TestTheBasisChangesWithKeysAndSignatures(t *testing.T) {
	content := readFixture(t, "cosign")
	image := content.image(t, "right")
	basis := func(keys ...string) string {
		t.Helper()
		for i, name := range keys {
			keys[i] = filepath.Join("testdata", "cosign", name)
		}
		got, err := newCondition(t, signed.Options{Content: content, Cosign: &signed.Cosign{Keys: keys}}).Evaluate(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		return got.Basis
	}
	first := basis("right.pub")
	if again := basis("right.pub"); again != first {
		t.Error("the same keys and signatures have another basis")
	}
	if basis("wrong.pub") == first || basis("right.pub", "wrong.pub") == first {
		t.Error("other keys have the same basis")
	}
	content.Refers[image.Digest] = nil
	if basis("right.pub") == first {
		t.Error("another list of signatures has the same basis")
	}
}

// Anybody who may push can attach anything to an image.
func TestStrangeSignaturesAreRefused(t *testing.T) {
	good := readFixture(t, "cosign")
	goodBundle := good.Blobs[layerOf(t, good, good.Refers[good.image(t, "right").Digest][0])]
	for name, attach := range map[string]func(t *testing.T, m *memory, image policy.Image){
		"an empty bundle": func(t *testing.T, m *memory, i policy.Image) { m.attach(t, i, bundleType, []byte(`{}`)) },
		"null":            func(t *testing.T, m *memory, i policy.Image) { m.attach(t, i, bundleType, []byte(`null`)) },
		"deep nesting": func(t *testing.T, m *memory, i policy.Image) {
			m.attach(t, i, bundleType, []byte(strings.Repeat("[", 500_000)))
		},
		"half of a bundle": func(t *testing.T, m *memory, i policy.Image) {
			m.attach(t, i, bundleType, goodBundle[:len(goodBundle)/2])
		},
		"a bundle of 2 MiB": func(t *testing.T, m *memory, i policy.Image) { m.attach(t, i, bundleType, make([]byte, 2<<20)) },
		"an empty envelope": func(t *testing.T, m *memory, i policy.Image) {
			m.attach(t, i, bundleType, []byte(`{"mediaType":"`+bundleType+`","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{}}`))
		},
		"a message": func(t *testing.T, m *memory, i policy.Image) {
			m.attach(t, i, bundleType, []byte(`{"mediaType":"`+bundleType+`","verificationMaterial":{"publicKey":{}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AAAA"},"signature":"AAAA"}}`))
		},
		"notation's envelope": func(t *testing.T, m *memory, i policy.Image) {
			m.attach(t, i, notationType, []byte(`{"payload":"e30"}`))
		},
		"a missing layer": func(t *testing.T, m *memory, i policy.Image) {
			d := m.attach(t, i, bundleType, goodBundle)
			delete(m.Blobs, layerOf(t, m, d))
		},
		"a layer that is another": func(t *testing.T, m *memory, i policy.Image) {
			d := m.attach(t, i, bundleType, goodBundle)
			m.Blobs[layerOf(t, m, d)] = []byte("another")
		},
		"a missing manifest": func(t *testing.T, m *memory, i policy.Image) {
			delete(m.Manifests, m.attach(t, i, bundleType, goodBundle).Digest.String())
		},
		"a digest that is none": func(_ *testing.T, m *memory, i policy.Image) {
			m.Refers[i.Digest] = append(m.Refers[i.Digest], ocispec.Descriptor{ArtifactType: bundleType, Digest: "x"})
		},
		"a certificate that is none": func(t *testing.T, m *memory, i policy.Image) {
			m.attachSimple(t, i, []byte(`{}`), map[string]string{"dev.cosignproject.cosign/signature": "AAAA", "dev.sigstore.cosign/certificate": "x"})
		},
		"a log's entry that is none": func(t *testing.T, m *memory, i policy.Image) {
			m.attachSimple(t, i, []byte(`{}`), map[string]string{"dev.cosignproject.cosign/signature": "AAAA", "dev.sigstore.cosign/bundle": `{"Payload":{"body":"AAAA"}}`})
		},
		"a timestamp that is none": func(t *testing.T, m *memory, i policy.Image) {
			m.attachSimple(t, i, []byte(`{}`), map[string]string{"dev.cosignproject.cosign/signature": "AAAA", "dev.sigstore.cosign/rfc3161timestamp": "[]"})
		},
		"a signature of nothing": func(t *testing.T, m *memory, i policy.Image) { m.attachSimple(t, i, nil, nil) },
		"a tag that is a list": func(t *testing.T, m *memory, i policy.Image) {
			m.addRaw(t, strings.Replace(i.Digest.String(), ":", "-", 1)+".sig", ocispec.MediaTypeImageIndex, []byte(`{"manifests":[{"digest":"x"}],"layers":[{"digest":"x","mediaType":"application/vnd.dev.cosign.simplesigning.v1+json"}]}`))
		},
		"a text with escapes of a terminal": func(t *testing.T, m *memory, i policy.Image) {
			m.attach(t, i, bundleType, []byte(`{"mediaType":"`+strings.Repeat(`\u001b[2J`, 1000)+`"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			image := m.addImage(t, "app")
			attach(t, m, image)
			folder := filepath.Join("testdata", "notation")
			condition := newCondition(t, signed.Options{
				Content:  m,
				Notation: &signed.Notation{TrustPolicy: filepath.Join(folder, "trustpolicy.json"), TrustStore: filepath.Join(folder, "truststore")},
				Cosign:   &signed.Cosign{Keys: []string{filepath.Join("testdata", "cosign", "right.pub")}},
			})
			got, err := condition.Evaluate(t.Context(), image)
			if err != nil || got.Holds || len(got.Reason) > 1500 || strings.ContainsFunc(got.Reason, func(r rune) bool { return r < ' ' }) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestOnlySoManySignaturesAreVerified(t *testing.T) {
	m := readFixture(t, "cosign")
	image := m.image(t, "wrong")
	list := m.Refers[image.Digest]
	for len(list) < 40 {
		list = append(list, list[0])
	}
	m.Refers[image.Digest] = append(list, m.Refers[m.image(t, "right").Digest]...)
	got, err := keyCondition(t, signed.Options{Content: m}).Evaluate(t.Context(), image)
	if err != nil || got.Holds || !strings.Contains(got.Reason, "41 signatures, more than are looked at") {
		t.Errorf("got %+v, %v", got, err)
	}
	if asked := m.asked.Load(); asked > 100 {
		t.Errorf("the upstream was asked %d times", asked)
	}
}

// Registries that know no artifact types list the type of the empty configuration.
func TestASignatureIsFoundBelowTheTypeOfItsConfiguration(t *testing.T) {
	for _, listed := range []string{"", ocispec.MediaTypeEmptyJSON} {
		m := readFixture(t, "cosign")
		image := m.image(t, "right")
		m.Refers[image.Digest][0].ArtifactType = listed
		decide(t, keyCondition(t, signed.Options{Content: m}), image, "listed as "+listed, cosignCases["right"])
	}
}

func TestATrustedRootWithALogWantsEntriesOfKeysToo(t *testing.T) {
	folder := t.TempDir()
	newSigstore(t).writeRoot(t, filepath.Join(folder, "root.json"))
	m := readFixture(t, "cosign")
	condition := newCondition(t, signed.Options{Content: m, Cosign: &signed.Cosign{
		Keys: []string{filepath.Join("testdata", "cosign", "right.pub")}, TrustedRoot: filepath.Join(folder, "root.json"),
	}})
	decide(t, condition, m.image(t, "right"), "right", verdict{reason: "log"})
	decide(t, condition, m.image(t, "right-tag"), "right-tag", verdict{reason: "log"})
}

func TestEitherKindOfSignatureIsEnough(t *testing.T) {
	folder := filepath.Join("testdata", "notation")
	both := signed.Options{
		Notation: &signed.Notation{TrustPolicy: filepath.Join(folder, "trustpolicy.json"), TrustStore: filepath.Join(folder, "truststore")},
		Cosign:   &signed.Cosign{Keys: []string{filepath.Join("testdata", "cosign", "right.pub")}},
	}
	for _, kind := range []string{"cosign", "notation"} {
		m := readFixture(t, kind)
		both.Content = m
		decide(t, newCondition(t, both), m.image(t, "right"), kind, verdict{holds: true, reason: "signed with " + kind})
		decide(t, newCondition(t, both), m.image(t, "unsigned"), kind, verdict{reason: "no signature of notation or cosign: sign this digest"})
	}
}

func TestNotationsTrustPolicyDecides(t *testing.T) {
	m := readFixture(t, "notation")
	folder := filepath.Join("testdata", "notation")
	services := &http.Client{Transport: &responder{by: readAuthority(t, folder)}}
	for name, c := range map[string]struct {
		scope, level, tag string
		want              verdict
	}{
		"skip needs no signature":                {"*", `{"level":"skip"}`, "unsigned", verdict{holds: true, reason: `"team" skips the verification`}},
		"a scope that is another":                {"registry.example/other", `{"level":"strict"}`, "right", verdict{reason: "does not cover registry.example/team/app"}},
		"a scope that is this one":               {"registry.example/team/app", `{"level":"strict"}`, "right", verdict{holds: true, reason: "signed with notation"}},
		"audit accepts an expired signature":     {"*", `{"level":"audit"}`, "ended", verdict{holds: true, reason: "signed with notation"}},
		"permissive accepts a revoked signature": {"*", `{"level":"permissive"}`, "revoked", verdict{holds: true, reason: "signed with notation"}},
		"no revocation asks no service":          {"*", `{"level":"strict","override":{"revocation":"skip"}}`, "silent", verdict{holds: true, reason: "signed with notation"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "trustpolicy.json")
			stores := `"trustStores":["ca:team"],"trustedIdentities":["*"],`
			if strings.Contains(c.level, "skip\"}") && !strings.Contains(c.level, "strict") {
				stores = ""
			}
			writeFile(t, path, fmt.Appendf(nil, `{"version":"1.0","trustPolicies":[{"name":"team","registryScopes":[%q],%s"signatureVerification":%s}]}`, c.scope, stores, c.level))
			condition := newCondition(t, signed.Options{
				Content: m, HTTP: services, Notation: &signed.Notation{TrustPolicy: path, TrustStore: filepath.Join(folder, "truststore")},
			})
			decide(t, condition, m.image(t, c.tag), c.tag, c.want)
		})
	}
}

func TestWithoutAClientNoServiceIsAsked(t *testing.T) {
	m := readFixture(t, "notation")
	folder := filepath.Join("testdata", "notation")
	condition := newCondition(t, signed.Options{
		Content:  m,
		Notation: &signed.Notation{TrustPolicy: filepath.Join(folder, "trustpolicy.json"), TrustStore: filepath.Join(folder, "truststore")},
	})
	decide(t, condition, m.image(t, "checked"), "checked", verdict{unknown: true, reason: "no service for revocation can be asked"})
	decide(t, condition, m.image(t, "right"), "right", verdict{holds: true, reason: "signed"})
}

func TestMistakesOfTheConfigurationAreAllReported(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		writeFile(t, path, []byte(text))
		return path
	}
	newSigstore(t).writeRoot(t, filepath.Join(folder, "root.json"))
	private := file("private.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	for name, c := range map[string]struct {
		opts signed.Options
		want []string
	}{
		"nothing":              {signed.Options{}, []string{"needs notation or cosign"}},
		"no keys":              {signed.Options{Cosign: &signed.Cosign{}}, []string{"cosign needs keys"}},
		"keys":                 {signed.Options{Cosign: &signed.Cosign{Keys: []string{"/nowhere.pub", private, "gcpkms://x", "awskms://x"}}}, []string{"/nowhere.pub", "private.pem is no public key", "not gcpkms", "awskms://x"}},
		"identities, no root":  {signed.Options{Cosign: &signed.Cosign{Identities: []signed.Identity{{Issuer: "a", Subject: "b"}}}}, []string{"need a trusted_root"}},
		"half an identity":     {signed.Options{Cosign: &signed.Cosign{TrustedRoot: filepath.Join(folder, "root.json"), Identities: []signed.Identity{{Issuer: "a"}}}}, []string{`of issuer "a"`}},
		"a bad expression":     {signed.Options{Cosign: &signed.Cosign{TrustedRoot: filepath.Join(folder, "root.json"), Identities: []signed.Identity{{Issuer: "a", SubjectRegexp: "("}}}}, []string{`identity "("`}},
		"no root":              {signed.Options{Cosign: &signed.Cosign{Keys: []string{"/nowhere.pub"}, TrustedRoot: "/nowhere.json"}}, []string{"/nowhere.pub", "/nowhere.json"}},
		"a root that is none":  {signed.Options{Cosign: &signed.Cosign{Keys: []string{"testdata/cosign/right.pub"}, TrustedRoot: file("bad.json", "{}")}}, []string{"bad.json"}},
		"no trust policy":      {signed.Options{Notation: &signed.Notation{TrustPolicy: "/nowhere/trustpolicy.json", TrustStore: folder}}, []string{"/nowhere/trustpolicy.json"}},
		"a trust policy: none": {signed.Options{Notation: &signed.Notation{TrustPolicy: file("policy.json", "{}"), TrustStore: folder}}, []string{"policy.json"}},
		"no trust store":       {signed.Options{Notation: &signed.Notation{TrustPolicy: "testdata/notation/trustpolicy.json", TrustStore: folder}}, []string{`trust store "team"`}},
		"of both": {signed.Options{Notation: &signed.Notation{TrustPolicy: "/nowhere/trustpolicy.json", TrustStore: folder}, Cosign: &signed.Cosign{Keys: []string{"/nowhere.pub"}}},
			[]string{"/nowhere/trustpolicy.json", "/nowhere.pub"}},
	} {
		_, err := signed.New(c.opts)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	}
	if _, err := os.Stat(private); err != nil {
		t.Fatal(err)
	}
}

func TestManyDecideAtOnce(t *testing.T) {
	m := readFixture(t, "notation")
	folder := filepath.Join("testdata", "notation")
	condition := notationCondition(t, folder, m, &responder{by: readAuthority(t, folder)})
	var wait sync.WaitGroup
	for range 4 {
		for tag, want := range notationCases {
			image := m.image(t, tag)
			wait.Go(func() { decide(t, condition, image, tag, want) })
		}
	}
	wait.Wait()
}
