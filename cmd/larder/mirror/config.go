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
	Version int      `toml:"version"`
	Imports []string `toml:"imports"`
	Plugins map[string]struct {
		Registry struct {
			ConfigPath string `toml:"config_path"`
		} `toml:"registry"`
	} `toml:"plugins"`
}

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
					c.Plugins = imported.Plugins
				} else if plugin.Registry.ConfigPath != "" {
					c.Plugins[name] = plugin
				}
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
