package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/larder-registry/larder/cache/disk"
)

// prepareCommand is "larder prepare". It is for a container that runs as root before
// the daemon runs as another user.
type prepareCommand struct {
	Config   string   `help:"Configuration file of the daemon ($$LARDER_CONFIG)." type:"path" placeholder:"FILE"`
	CacheDir *string  `help:"Folder of the cache." placeholder:"DIR"`
	Folder   []string `help:"Another folder to create and give away, such as that of access.key_file; may be given several times. It must be empty." placeholder:"DIR" type:"path"`
	Owner    string   `required:"" help:"The user and group that will run the daemon, by number." placeholder:"USER:GROUP"`
}

// Help is what kong shows below the usage.
func (*prepareCommand) Help() string {
	return "Example:\n\n" +
		"    larder prepare --cache-dir /var/lib/larder --owner 65532:65532"
}

// Run creates the folders and gives them to their owner.
func (c *prepareCommand) Run(p *invocation) error {
	owner, err := parseOwner(c.Owner)
	if err != nil {
		return usageError{err}
	}
	cfg, _, err := settings{Config: c.Config, CacheDir: c.CacheDir}.load(p)
	if err != nil {
		return err
	}
	given, err := disk.GiveTo(cfg.Cache.Dir, owner)
	if err != nil {
		return err
	}
	c.tell(p, cfg.Cache.Dir, given)
	for _, dir := range c.Folder {
		if given, err = disk.GiveFolder(dir, owner); err != nil {
			return err
		}
		c.tell(p, dir, given)
	}
	return nil
}

func (c *prepareCommand) tell(p *invocation, dir string, given bool) {
	did := "belonged before to"
	if given {
		did = "belongs now to"
	}
	fmt.Fprintf(p.stdout, "%s %s %s\n", dir, did, c.Owner)
}

// parseOwner reads "65532:65532".
func parseOwner(s string) (disk.Owner, error) {
	user, group, _ := strings.Cut(s, ":")
	uid, userErr := strconv.ParseUint(user, 10, 31)
	gid, groupErr := strconv.ParseUint(group, 10, 31)
	if userErr != nil || groupErr != nil {
		return disk.Owner{}, fmt.Errorf("--owner: %q is not the numbers of a user and a group, such as 65532:65532", s)
	}
	return disk.Owner{User: int(uid), Group: int(gid)}, nil
}
