package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// DefaultConfig is where containerd has its configuration.
	DefaultConfig = "/etc/containerd/config.toml"

	// verifierPlugin asks the programs of a folder before containerd 2 pulls an image, and defaultVerifiers is that folder if the
	// configuration names none (containerd, docs/image-verification.md).
	verifierPlugin   = "io.containerd.image-verifier.v1.bindir"
	defaultVerifiers = "/opt/containerd/image-verifier/bin"
)

// Verifier returns the path of the image verifier with a name that containerd 2.1 or later asks before the kubelet's images are
// pulled, by containerd's configuration file. The error says why it asks none.
func Verifier(config, name string) (string, error) {
	file, err := readConfig(config)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without a file there are containerd's defaults
		return "", fmt.Errorf("%s cannot be read: %w", config, err)
	}
	for _, plugin := range []string{imagesPlugin, criPlugin} {
		if local := file.Plugins[plugin].localPull(); local != "" {
			return "", fmt.Errorf("with %s in %s containerd asks no image verifier for the kubelet's images", local, config)
		}
	}
	path := filepath.Join(cmp.Or(file.Plugins[verifierPlugin].BinDir, defaultVerifiers), name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("containerd has no image verifier %s", path)
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return "", fmt.Errorf("%s is not a program that can be run", path)
	}
	return path, nil
}
