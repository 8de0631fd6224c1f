package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes which modules a binary was built from, as Go recorded in it, in CycloneDX's form.
func writeSBOM(path, binary, version string, stamp time.Time) (err error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read the modules of %s: %w", binary, err)
	}
	components := []cyclonedx.Component{{
		Type: cyclonedx.ComponentTypeLibrary, BOMRef: "pkg:golang/std@" + info.GoVersion, Name: "std", Version: info.GoVersion, PackageURL: "pkg:golang/std@" + info.GoVersion,
	}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		component, err := componentOf(module)
		if err != nil {
			return err
		}
		components = append(components, component)
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: stamp.Format(time.RFC3339),
		Component: &cyclonedx.Component{
			Type: cyclonedx.ComponentTypeApplication, BOMRef: "larder", Name: "larder", Version: version,
			PackageURL: fmt.Sprintf("pkg:golang/%s@%s", info.Main.Path, version),
		},
	}
	bom.Components = &components
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(cyclonedx.NewBOMEncoder(file, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom), file.Close())
}

// componentOf returns a module with the hash that go.sum has of it: SHA-256 of its tree (golang.org/x/mod/sumdb/dirhash).
func componentOf(module *debug.Module) (cyclonedx.Component, error) {
	url := fmt.Sprintf("pkg:golang/%s@%s", module.Path, module.Version)
	c := cyclonedx.Component{Type: cyclonedx.ComponentTypeLibrary, BOMRef: url, Name: module.Path, Version: module.Version, PackageURL: url}
	sum, ok := strings.CutPrefix(module.Sum, "h1:")
	if !ok {
		return c, nil
	}
	hash, err := base64.StdEncoding.DecodeString(sum)
	if err != nil {
		return c, fmt.Errorf("the checksum of %s: %w", cmp.Or(module.Path, "a module"), err)
	}
	c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(hash)}}
	return c, nil
}
