package config

import (
	"os"
	"path/filepath"
	"time"
)

// Access says how long the answers of upstreams are believed whose Upstream.Access is AccessClient.
type Access struct {
	// Recheck is how long an upstream's yes to a client's credential is believed before the
	// upstream is asked again. It is more than 0. Default 1h.
	Recheck time.Duration
	// Offline is how long a yes is believed, since it was last confirmed, while the upstream
	// cannot be asked; 0 means not at all. Default 720h.
	Offline time.Duration
	// KeyFile is the absolute path of the key of the hashes of credentials. It is outside of the
	// cache's folder, and made if it does not exist. Default /etc/larder/access.key for root,
	// and larder/access.key in the user's configuration folder for others.
	KeyFile string
	// Realm is the URL by which clients reach Larder, where that is not the one that they name
	// in their requests; "" for none.
	Realm string
}

// The values of Upstream.Access: whose rights decide what of the upstream's content a client gets.
const (
	AccessNode   = "node"
	AccessClient = "client"
)

// ByClient reports whether the client's own rights decide.
func (u Upstream) ByClient() bool { return u.Access == AccessClient }

// HasAccessByClient reports whether the client's own rights decide at some upstream.
func (c *Config) HasAccessByClient() bool {
	for _, u := range c.Upstreams {
		if u.ByClient() {
			return true
		}
	}
	return false
}

// defaultKeyFile is "" if the user has no configuration folder.
func defaultKeyFile() string {
	if os.Geteuid() == 0 {
		return "/etc/larder/access.key"
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "larder", "access.key")
}
