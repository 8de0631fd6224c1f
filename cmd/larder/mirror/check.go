package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// A Finding is the result of one check of a node.
type Finding struct {
	OK   bool   `json:"ok"`
	What string `json:"what"`
	// Advice is what to do if it is not OK.
	Advice string `json:"advice,omitempty"`
	// InPart says that the runtime asks Larder nevertheless, for some images or until it is upgraded.
	InPart bool `json:"inPart,omitempty"`
}

func good(format string, args ...any) Finding {
	return Finding{OK: true, What: fmt.Sprintf(format, args...)}
}

// Node is what [Check] examines.
type Node struct {
	// Hosts is the folder with the hosts.toml files.
	Hosts string
	// Config is containerd's own configuration file, which names that folder. Empty
	// means that it is not examined.
	Config string
	// SOCI is the configuration file of the SOCI snapshotter. It is read if the node has one
	// and containerd uses that snapshotter.
	SOCI string
	// Environ is containerd's environment, in the form of [os.Environ]. Nil means
	// that it is not known.
	Environ []string
}

// Check finds out whether a node's containerd would pull through the mirror: it reads
// the files that containerd reads, and asks whether Larder answers.
func Check(ctx context.Context, m Mirror, node Node) []Finding {
	var all []Finding
	if node.Config != "" {
		all = append(all, checkConfig(m, node))
		all = append(all, checkSnapshotter(node)...)
	}
	all = append(all, checkFiles(m, node.Hosts)...)
	all = append(all, checkHidden(m, node.Hosts)...)
	if node.Environ != nil {
		all = append(all, checkProxy(m, node.Environ))
	}
	return append(all, checkAnswer(ctx, m))
}

// checkConfig checks that containerd reads hosts.toml from this folder. Since 2.1
// containerd's CRI pulls through the transfer service, which takes a list of two folders
// for the name of one, and since 2.2 such a list is its default: it then reads no
// hosts.toml and reports no error (containerd/containerd issues 12415, 12808). Some
// settings make it pull by itself; then it reads all folders of the list.
func checkConfig(m Mirror, node Node) Finding {
	file, err := readConfig(node.Config)
	missing := errors.Is(err, fs.ErrNotExist) // containerd uses its defaults then
	if err != nil && !missing {
		return Finding{
			What:   fmt.Sprintf("%s cannot be read: %v", node.Config, err),
			Advice: "make it readable, or name another file with --containerd-config",
		}
	}
	table, path := file.configPath(m.Containerd)
	advice := node.setConfigPath(table, missing)
	local := file.Plugins[table].localPull()
	if path == "" && m.Containerd.AtLeast(2, 2) && local != "" {
		path = defaultConfigPath
	}
	switch folders := filepath.SplitList(path); {
	case path == "" && m.Containerd.AtLeast(2, 2):
		return Finding{What: "containerd reads hosts.toml from its default, which is two folders: it reads none", Advice: advice}
	case path == "":
		return Finding{What: "containerd has no config_path: it reads no hosts.toml", Advice: advice}
	case len(folders) > 1 && local != "" && m.Containerd.AtLeast(2, 1) && slices.ContainsFunc(folders, node.isHosts):
		return good("containerd reads hosts.toml from %s: %s makes it read each folder of config_path", node.Hosts, local)
	case len(folders) > 1 && local != "" && m.Containerd.AtLeast(2, 1):
		return Finding{What: fmt.Sprintf("containerd's config_path is %s, without %s", path, node.Hosts),
			Advice: "give one of these folders as --containerd-dir, or " + advice}
	case len(folders) > 1:
		known := m.Containerd != (Version{})
		return Finding{What: fmt.Sprintf("containerd's config_path is %d folders, %s: since 2.1 it reads neither", len(folders), path), Advice: advice,
			InPart: known && !m.Containerd.AtLeast(2, 1)} // it works until the next upgrade
	case !node.isHosts(path):
		return Finding{What: fmt.Sprintf("containerd's config_path is %s, not %s", path, node.Hosts),
			Advice: "give that folder as --containerd-dir, or " + advice}
	}
	return good("containerd reads hosts.toml from %s", path)
}

// defaultConfigPath is the default of containerd 2.2 and later.
const defaultConfigPath = "/etc/containerd/certs.d:/etc/docker/certs.d"

// isHosts reports whether a folder is the one with the hosts.toml files.
func (n Node) isHosts(folder string) bool { return filepath.Clean(folder) == filepath.Clean(n.Hosts) }

// setConfigPath returns what to do so that containerd reads the node's hosts.toml
// files. A new configuration must have a version.
func (n Node) setConfigPath(table string, isNew bool) string {
	if !isNew {
		return fmt.Sprintf("write in %s, and restart containerd:\n[plugins.%q.registry]\n  config_path = %q", n.Config, table, n.Hosts)
	}
	return fmt.Sprintf("%s does not exist: name another file with --containerd-config, or write it and restart containerd:\n"+
		"version = %d\n[plugins.%q.registry]\n  config_path = %q", n.Config, versionOf(table), table, n.Hosts)
}

func checkFiles(m Mirror, dir string) []Finding {
	if err := m.checkURL(); err != nil {
		return []Finding{{What: err.Error(), Advice: "let Larder listen on 127.0.0.1, or give another address with --url"}}
	}
	files, err := planAsIs(m, dir)
	current := writtenFor(m, dir)
	var all []Finding
	for _, problem := range problems(err) {
		all = append(all, Finding{What: problem.Error(), Advice: "change the file so that it can be merged, and run larder mirror again"})
	}
	for _, f := range files {
		switch hosts, err := readFile(f.current); {
		case !f.exists:
			all = append(all, Finding{What: f.path + " is missing", Advice: "run larder mirror"})
		case err != nil:
			all = append(all, Finding{What: fmt.Sprintf("%s cannot be read: %v", f.path, err), Advice: "fix or remove it, and run larder mirror"})
		case !hosts.names(m.URL):
			all = append(all, Finding{What: fmt.Sprintf("%s does not name %s", f.path, m.URL), Advice: "run larder mirror"})
		case f.secret && f.open:
			all = append(all, Finding{What: f.path + " has a password and can be read by everybody", Advice: "run larder mirror"})
		case f.current != f.want && !current[f.path]:
			all = append(all, Finding{What: f.path + " was changed, or is for another version of containerd", Advice: "run larder mirror"})
		case hosts.hasOnly(m.URL):
			all = append(all, good("%s names %s alone: the registry is never asked", f.path, m.URL))
		case m.Only:
			all = append(all, Finding{
				What:   fmt.Sprintf("%s lets the node ask the registry for what Larder does not have, or refuses", f.path),
				Advice: "run larder mirror --only",
			})
		default:
			all = append(all, good("%s names %s; for what Larder does not have, the registry is asked", f.path, m.URL))
		}
	}
	return all
}

// Fallbacks returns the files in a folder of hosts.toml files that name the mirror and let containerd
// ask the registry as well. Files that cannot be read are left out.
func (m Mirror) Fallbacks(dir string) []string {
	var all []string
	for _, registry := range m.folders() {
		f, err := planFolder(m, filepath.Join(dir, folderName(dir, registry)))
		if err != nil || !f.exists {
			continue
		}
		if hosts, err := readFile(f.current); err == nil && hosts.names(m.URL) && !hosts.hasOnly(m.URL) {
			all = append(all, f.path)
		}
	}
	return all
}

// writtenFor returns the files that are as larder mirror writes them for some version of containerd,
// if the mirror's own is not known.
func writtenFor(m Mirror, dir string) map[string]bool {
	if m.Containerd != (Version{}) {
		return nil
	}
	current := make(map[string]bool)
	for _, v := range []Version{{2, 1}, {2, 2}} { // those with settings of their own
		m.Containerd = v
		files, _ := planAsIs(m, dir) // checkFiles has told of the error
		for _, f := range files {
			if f.current == f.want {
				current[f.path] = true
			}
		}
	}
	return current
}

// planAsIs is plan for a node that may have either kind of files: each is compared with its own
// kind.
func planAsIs(m Mirror, dir string) (files []hostsFile, err error) {
	m.Only = false
	both, err := plan(m, dir)
	m.Only = true
	only, _ := plan(m, dir) // merges nothing: its errors are those of reading, and in err too
	for i, f := range only {
		if hosts, bad := readFile(f.current); bad == nil && f.exists && hosts.hasOnly(m.URL) {
			files = append(files, f)
			continue
		}
		if j := slices.IndexFunc(both, func(other hostsFile) bool { return other.path == only[i].path }); j >= 0 {
			files = append(files, both[j])
		}
	}
	return files, err
}

// checkHidden finds folders that containerd reads in place of _default: it reads the
// first that exists, even one that has only certificates.
func checkHidden(m Mirror, dir string) []Finding {
	if !m.Default {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return []Finding{{What: err.Error(), Advice: "make the folder readable"}}
	}
	var all []Finding
	for _, e := range entries {
		if !isFolder(filepath.Join(dir, e.Name())) || slices.Contains(m.folders(), registryOf(e.Name())) {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(dir, e.Name(), "hosts.toml"))
		if hosts, _ := readFile(string(text)); !hosts.names(m.URL) {
			all = append(all, Finding{
				What:   fmt.Sprintf("%s hides _default: images of this registry are not pulled through Larder", filepath.Join(dir, e.Name())),
				Advice: fmt.Sprintf("add --registry %s to larder mirror, or leave it if that is intended", registryOf(e.Name())),
				InPart: true,
			})
		}
	}
	return all
}

// registryOf returns the registry of a folder.
func registryOf(folder string) string {
	if host, ok := strings.CutSuffix(folder, "_"); ok {
		if i := strings.LastIndexByte(host, '_'); i > 0 {
			return host[:i] + ":" + host[i+1:]
		}
	}
	return folder
}

// checkProxy checks whether containerd would reach Larder through a proxy. Go's HTTP
// client never uses one for localhost and loopback addresses.
func checkProxy(m Mirror, environ []string) Finding {
	env := make(map[string]string)
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		env[strings.ToUpper(key)] = value
	}
	target, err := url.Parse(m.URL)
	if err != nil {
		return Finding{What: fmt.Sprintf("%s is not a URL", m.URL), Advice: "give one with --url"}
	}
	proxies := httpproxy.Config{HTTPProxy: env["HTTP_PROXY"], HTTPSProxy: env["HTTPS_PROXY"], NoProxy: env["NO_PROXY"]}
	if proxy, err := proxies.ProxyFunc()(target); err != nil || proxy != nil {
		return Finding{
			What:   "containerd's proxy variables send requests for Larder to a proxy",
			Advice: fmt.Sprintf("add %s to NO_PROXY in containerd's environment, and restart it", target.Hostname()),
		}
	}
	return good("no proxy is between containerd and Larder")
}
