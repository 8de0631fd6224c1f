package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pelletier/go-toml/v2"
)

// DefaultSOCI is where the SOCI snapshotter has its configuration.
const DefaultSOCI = "/etc/soci-snapshotter-grpc/config.toml"

// sociConfig is the part of SOCI's configuration that says how it pulls (docs/parallel-mode.md
// of awslabs/soci-snapshotter).
type sociConfig struct {
	PullModes struct {
		Parallel struct {
			Enable bool `toml:"enable"`
		} `toml:"parallel_pull_unpack"`
	} `toml:"pull_modes"`
}

// checkSnapshotter finds a snapshotter that fetches from the registry by itself. SOCI ignores
// mirrors for the layers that it pulls in parallel, and for its index when it pulls lazily.
// stargz asks the mirrors of hosts.toml for everything.
func checkSnapshotter(node Node) []Finding {
	file, err := readConfig(node.Config)
	if err != nil {
		return nil // checkConfig has told of it
	}
	switch file.snapshotter() {
	case "stargz":
		return []Finding{good("the stargz snapshotter asks the mirrors of hosts.toml")}
	case "soci":
	default:
		return nil
	}
	what, err := sociFetches(node.SOCI)
	if err != nil {
		return []Finding{{
			What:   fmt.Sprintf("how the SOCI snapshotter pulls is not known: %v", err),
			Advice: "make the file readable; in its parallel mode SOCI fetches all layers from the registries themselves, in its lazy mode its index",
			InPart: true,
		}}
	}
	return []Finding{{
		What: "the SOCI snapshotter fetches " + what + " from the registries themselves",
		Advice: "name images by Larder's address, such as 127.0.0.1:5000/<registry>/<repository>, so that SOCI asks Larder; " +
			"or leave it if that is intended",
		InPart: true,
	}}
}

// sociFetches says what SOCI fetches without mirrors, by its configuration, which it may do
// without.
func sociFetches(path string) (what string, err error) {
	raw, err := os.ReadFile(path)
	switch {
	case path == "" || errors.Is(err, fs.ErrNotExist):
		return "its index, and in its parallel mode all layers,", nil
	case err != nil:
		return "", err
	}
	var c sociConfig
	if err := toml.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if c.PullModes.Parallel.Enable {
		return "all layers (its parallel mode, by " + path + ")", nil
	}
	return "its index (its lazy mode, by " + path + ")", nil
}
