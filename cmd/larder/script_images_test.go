package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// provideUpstream starts a fake ECR that lasts as long as the script, and writes a configuration for it: "upstream file".
// It has team/app:v1 and team/app:v2, which share a layer of 1 MiB and have one of 64 KiB each. $HOST is its name.
func provideUpstream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: upstream file")
	}
	fake, err := ecrtest.Start(ecrtest.Options{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(fake.Close()) })
	base := ecrtest.Layer{Content: ecrtest.Random(1, 1<<20)}
	for i, tag := range []string{"v1", "v2"} {
		own := ecrtest.Layer{Content: ecrtest.Random(uint64(2+i), 64<<10)}
		_, err := fake.AddImage("team/app", tag, ecrtest.Image{Layers: []ecrtest.Layer{base, own}})
		ts.Check(err)
	}
	ts.Setenv("HOST", fake.Host())
	ts.Setenv("AWS_ACCESS_KEY_ID", "AKIDLARDERTEST")
	ts.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	ts.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, `listen: %s
admin: %s
cache: {dir: %s, min_free: 0}
default_upstream: %s
upstreams:
  - host: %s
    endpoint: %s
    ecr: {api_endpoint: %s}
`, ts.Getenv("LISTEN"), ts.Getenv("ADMIN"), ts.MkAbs("cache"), fake.Host(), fake.Host(), fake.Endpoint, fake.Endpoint), 0o600))
}

// damage flips a bit of each file below a folder: "damage folder".
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage folder")
	}
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return flipBit(path)
	}))
}

// flipBit flips one bit in the middle of a file.
func flipBit(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[len(content)/2] ^= 4
	return os.WriteFile(path, content, 0o600)
}

// edit replaces a text in a file: "edit file old new".
func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit file old new")
	}
	before := ts.ReadFile(args[0])
	after := strings.Replace(before, args[1], args[2], 1)
	if after == before {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(after), 0o600))
}

// pullTag pulls an image through the daemon: "pull team/app v1". What was pulled is in the cache once the daemon ended.
func pullTag(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pull repository tag")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) []byte {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ts.Getenv("LISTEN")+"/v2/"+args[0]+path, nil)
		ts.Check(err)
		resp, err := client.Do(req)
		ts.Check(err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		ts.Check(err)
		if resp.StatusCode != http.StatusOK {
			ts.Fatalf("GET %s: %s %s", path, resp.Status, body)
		}
		return body
	}
	var manifest ocispec.Manifest
	ts.Check(json.Unmarshal(get("/manifests/"+args[1]), &manifest))
	for _, blob := range append(manifest.Layers, manifest.Config) {
		get("/blobs/" + blob.Digest.String())
	}
}

// makeKeys writes a private key and its public key: "keys name" writes name.key and name.pub.
func makeKeys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keys name")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	der, err = x509.MarshalPKIXPublicKey(&private.PublicKey)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
}
