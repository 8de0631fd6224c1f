package manifest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/manifest"
)

// oddManifests are documents of an upstream that lies, with what becomes of each.
func oddManifests() map[string]struct {
	raw  string
	kept bool
} {
	type odd = struct {
		raw  string
		kept bool
	}
	layer := string(digest.FromString("a layer"))
	image := func(rest string) string {
		return `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `",` + rest + `}`
	}
	sized := func(size string) string {
		return image(`"layers":[{"digest":"` + layer + `","size":` + size + `}]`)
	}
	nested := func(open, end string, n int) string {
		return image(`"layers":[],"annotations":` + strings.Repeat(open, n) + "1" + strings.Repeat(end, n))
	}
	return map[string]odd{
		"a size below 0":                    {sized("-1"), false},
		"the least size":                    {sized("-9223372036854775808"), false},
		"a size below the least":            {sized("-9223372036854775809"), false},
		"a size above the most":             {sized("9223372036854775808"), false},
		"a size of 100,000 digits":          {sized(strings.Repeat("9", 100_000)), false},
		"a size with a fraction":            {sized("1.5"), false},
		"a size with an exponent":           {sized("1e3"), false},
		"a size with a huge exponent":       {sized("1e999999999"), false},
		"a size as text":                    {sized(`"5"`), false},
		"a size as a list":                  {sized(`[5]`), false},
		"a size that is true":               {sized(`true`), false},
		"a size that is no JSON":            {sized(`0x10`), false},
		"the most that is a size":           {sized("9223372036854775807"), true},
		"no size":                           {sized("null"), true},
		"a size of a config below 0":        {image(`"config":{"digest":"` + layer + `","size":-5},"layers":[]`), false},
		"a size twice":                      {image(`"layers":[{"digest":"` + layer + `","size":1,"size":2}]`), false},
		"a size in two cases":               {image(`"layers":[{"digest":"` + layer + `","size":1,"Size":2}]`), false},
		"a key with an escape":              {image(`"layers":[],"l\u0061yers":[]`), false},
		"a key with a long s":               {image(`"layers":[],"layerſ":[]`), false},
		"a key with a null":                 {image(`"layers":[],"layers\u0000":[]`), true}, // another key to every reader
		"a digest of another algorithm":     {image(`"layers":[{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}]`), false},
		"a digest that leads upwards":       {image(`"layers":[{"digest":"sha256:../../../../etc/shadow","size":1}]`), false},
		"a digest in upper case":            {image(`"layers":[{"digest":"` + strings.ToUpper(layer) + `","size":1}]`), false},
		"a digest of invalid UTF-8":         {image("\"layers\":[{\"digest\":\"sha256:\xff\xfe\",\"size\":1}]"), false},
		"a digest as a number":              {image(`"layers":[{"digest":5,"size":1}]`), false},
		"objects within each other":         {nested(`{"a":`, "}", 20_000), false},
		"lists within each other":           {nested("[", "]", 20_000), false},
		"layers within each other":          {image(`"layers":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)), false},
		"a subject within a subject":        {image(`"layers":[],"subject":` + strings.Repeat(`{"subject":`, 20_000) + "{}" + strings.Repeat("}", 20_000)), false},
		"an object that does not end":       {`{"layers":[`, false},
		"a byte order mark":                 {"\ufeff" + image(`"layers":[]`), false},
		"UTF-16":                            {"{\x00}\x00", false},
		"a mediaType with a line break":     {`{"mediaType":"` + ocispec.MediaTypeImageManifest + `\r\nX: y","layers":[]}`, false},
		"a mediaType of a megabyte":         {`{"mediaType":"` + strings.Repeat("x", 1<<20) + `","layers":[]}`, false},
		"a mediaType that is a list":        {`{"mediaType":["` + ocispec.MediaTypeImageManifest + `"],"layers":[]}`, false},
		"a mediaType of another case":       {`{"mediaType":"` + strings.ToUpper(ocispec.MediaTypeImageManifest) + `","layers":[]}`, false},
		"an unknown key of a megabyte":      {image(`"` + strings.Repeat("x", 1<<20) + `":!`), false},
		"urls that are no list":             {image(`"layers":[{"digest":"` + layer + `","urls":"http://169.254.169.254/"}]`), false},
		"a platform that is text":           {`{"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[{"digest":"` + layer + `","size":1,"platform":"linux"}]}`, false},
		"an index of negative sizes":        {`{"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[{"digest":"` + layer + `","size":-1}]}`, false},
		"a subject that is no digest":       {image(`"layers":[],"subject":{"digest":"x","size":1}`), true},
		"a subject of another algorithm":    {image(`"layers":[],"subject":{"digest":"sha384:` + strings.Repeat("0", 96) + `","size":1}`), true},
		"a subject that is a list":          {image(`"layers":[],"subject":[]`), false},
		"a schemaVersion of 100,000 digits": {strings.Replace(image(`"layers":[]`), ":2,", ":"+strings.Repeat("9", 100_000)+",", 1), false},
		"annotations of invalid UTF-8":      {image("\"layers\":[],\"annotations\":{\"\xff\":\"\xfe\"}"), true},
		"a lone surrogate":                  {image(`"layers":[],"annotations":{"\ud800":"\udfff"}`), true},
	}
}

func TestOddManifestsAreRefusedOrHarmless(t *testing.T) {
	for name, odd := range oddManifests() {
		m := manifest.Manifest{Digest: digest.FromString(odd.raw), MediaType: ocispec.MediaTypeImageManifest, Raw: []byte(odd.raw)}
		parts, err := m.Check()
		if (err == nil) != odd.kept || err != nil && !errors.Is(err, manifest.ErrRefused) {
			t.Errorf("%s: %.200s; kept must be %t", name, err, odd.kept)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: its error has %d bytes", name, len(err.Error()))
		}
		for _, child := range parts.Children {
			if child.Size < 0 || disk.CheckDigest(child.Digest) != nil {
				t.Errorf("%s: it names %q of %d bytes", name, child.Digest, child.Size)
			}
		}
		if err == nil {
			_ = m.Referrer() // which must not panic
		}
	}
}
