package mirror

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// containerdConfig is the part of containerd's configuration that says from where it
// reads hosts.toml (docs/cri/config.md of containerd/containerd).
type containerdConfig struct {
	Version int                     `toml:"version"`
	Imports []string                `toml:"imports"`
	Plugins map[string]pluginConfig `toml:"plugins"`
}

// pluginConfig is the configuration of the plugin that pulls images for the kubelet. A
// setting that is nil is not in the file.
type pluginConfig struct {
	Registry struct {
		ConfigPath string `toml:"config_path"`
	} `toml:"registry"`

	// Snapshotter is in the table itself since 2.0, and in the table containerd before.
	Snapshotter string `toml:"snapshotter"`
	Containerd  struct {
		Snapshotter string `toml:"snapshotter"`
	} `toml:"containerd"`

	BinDir string `toml:"bin_dir"` // of the plugin that asks image verifiers

	UseLocalImagePull          *bool  `toml:"use_local_image_pull"`
	DiscardUnpackedLayers      *bool  `toml:"discard_unpacked_layers"`
	DisableSnapshotAnnotations *bool  `toml:"disable_snapshot_annotations"`
	MaxConcurrentDownloads     *int64 `toml:"max_concurrent_downloads"`
}

// override replaces the settings that another file has.
func (p *pluginConfig) override(other pluginConfig) {
	p.Registry.ConfigPath = cmp.Or(other.Registry.ConfigPath, p.Registry.ConfigPath)
	p.Snapshotter = cmp.Or(other.Snapshotter, p.Snapshotter)
	p.Containerd.Snapshotter = cmp.Or(other.Containerd.Snapshotter, p.Containerd.Snapshotter)
	p.BinDir = cmp.Or(other.BinDir, p.BinDir)
	p.UseLocalImagePull = cmp.Or(other.UseLocalImagePull, p.UseLocalImagePull)
	p.DiscardUnpackedLayers = cmp.Or(other.DiscardUnpackedLayers, p.DiscardUnpackedLayers)
	p.DisableSnapshotAnnotations = cmp.Or(other.DisableSnapshotAnnotations, p.DisableSnapshotAnnotations)
	p.MaxConcurrentDownloads = cmp.Or(other.MaxConcurrentDownloads, p.MaxConcurrentDownloads)
}

// localPull returns the setting that makes the plugin of containerd 2 pull images by itself,
// and not through the transfer service, or "". Only the transfer service takes a list of
// folders for the name of one.
func (p pluginConfig) localPull() string {
	isSet := func(b *bool, to bool) bool { return b != nil && *b == to }
	switch {
	case isSet(p.UseLocalImagePull, true):
		return "use_local_image_pull = true"
	case isSet(p.DiscardUnpackedLayers, true):
		return "discard_unpacked_layers = true"
	case isSet(p.DisableSnapshotAnnotations, false):
		return "disable_snapshot_annotations = false"
	case p.MaxConcurrentDownloads != nil && *p.MaxConcurrentDownloads != defaultDownloads:
		return fmt.Sprintf("max_concurrent_downloads = %d", *p.MaxConcurrentDownloads)
	}
	return ""
}

// defaultDownloads is containerd's default for max_concurrent_downloads.
const defaultDownloads = 3

// The plugins whose table has the registries: in version 3 of the configuration, which
// came with containerd 2.0, and in version 2.
const (
	imagesPlugin = "io.containerd.cri.v1.images"
	criPlugin    = "io.containerd.grpc.v1.cri"
)

// readConfig reads a file and its imports. The last import overrides the others.
func readConfig(path string) (containerdConfig, error) {
	c, err := readConfigFile(path)
	if err != nil {
		return c, err
	}
	for _, pattern := range c.Imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(path), pattern)
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			return c, fmt.Errorf("import %s: %w", pattern, err)
		}
		for _, file := range files {
			imported, err := readConfigFile(file)
			if err != nil {
				return c, err
			}
			for name, plugin := range imported.Plugins {
				if c.Plugins == nil {
					c.Plugins = make(map[string]pluginConfig)
				}
				merged := c.Plugins[name]
				merged.override(plugin)
				c.Plugins[name] = merged
			}
		}
	}
	return c, nil
}

func readConfigFile(path string) (c containerdConfig, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := toml.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}

// versionOf returns the version of a configuration with this plugin.
func versionOf(plugin string) int {
	if plugin == imagesPlugin {
		return 3
	}
	return 2
}

// configPath returns config_path, and the plugin in whose table it belongs.
func (c containerdConfig) configPath(v Version) (plugin, path string) {
	plugin = criPlugin
	if c.Version >= 3 || c.Version == 0 && v.AtLeast(2, 0) {
		plugin = imagesPlugin
	}
	return plugin, cmp.Or(c.Plugins[plugin].Registry.ConfigPath, c.Plugins[criPlugin].Registry.ConfigPath)
}

// snapshotter returns the name of the snapshotter that the kubelet's images use, or "" for
// containerd's default.
func (c containerdConfig) snapshotter() string {
	return cmp.Or(c.Plugins[imagesPlugin].Snapshotter, c.Plugins[criPlugin].Containerd.Snapshotter)
}
