// Package mirror configures container runtimes to pull through Larder. For containerd
// it writes hosts.toml files, restores the files that were there before, and checks
// whether a node uses them. For other runtimes it prints what to paste into their
// configuration.
//
// How containerd reads these files is documented in docs/hosts.md of
// containerd/containerd.
package mirror

import (
	"fmt"
	"strings"
)

// Mirror is what the configuration of a node says about Larder.
type Mirror struct {
	// URL is the URL at which the node reaches Larder: http://127.0.0.1:5000.
	URL string
	// TLS are the files for a URL that begins with https.
	TLS TLS
	// Authorization is the header that the node sends with each request, if clients need a
	// password; "" for none. It is a secret: a file that has it can be read by its owner alone.
	Authorization string
	// Registries are the hosts whose images are pulled through Larder, as in the
	// names of images.
	Registries []string
	// Default adds every other registry that has no folder of its own. Larder refuses
	// those that are not configured, and the node then asks the registry itself.
	Default bool
	// Only means that the node never asks a registry itself: what Larder does not have is
	// not pulled.
	Only bool
	// Containerd is the version of the containerd that reads the files. The zero
	// value means any version.
	Containerd Version
}

// defaultFolder is what containerd reads for a registry without a folder.
const defaultFolder = "_default"

// checkURL returns an error if the containerd that reads the files cannot read the URL. Before
// 2.0 containerd looks hosts up by a path of keys, in which a bracket may not stand, and
// refuses the whole file.
func (m Mirror) checkURL() error {
	if strings.Contains(m.URL, "[") && !m.Containerd.AtLeast(2, 0) {
		return fmt.Errorf("containerd before 2.0 cannot read a hosts.toml that names %s, an IPv6 address", m.URL)
	}
	return nil
}

// folders returns the names of the folders that the mirror needs.
func (m Mirror) folders() []string {
	folders := append([]string(nil), m.Registries...)
	if m.Default {
		folders = append(folders, defaultFolder)
	}
	return folders
}

// The lines around the mirror's block in a file that has other content too.
const (
	blockBegin = "# larder mirror: begin"
	blockEnd   = "# larder mirror: end"
)

// block returns the table that sends pulls to Larder. For an http URL it has no TLS settings: with
// any of them containerd tries that over https first. With Only, Larder is also the server, which
// containerd asks last instead of the registry. The table stays: without one, containerd before
// 2.0 does not read the file.
func (m Mirror) block() string {
	var b strings.Builder
	fmt.Fprintln(&b, blockBegin)
	if m.Only {
		fmt.Fprintf(&b, "server = %q\n%s\n", m.URL, m.hostSettings(""))
	}
	fmt.Fprintf(&b, "[host.%q]\n%s", m.URL, m.hostSettings("  "))
	fmt.Fprintln(&b, blockEnd)
	return b.String()
}

// hostSettings returns the lines about Larder as a host, or as the server.
func (m Mirror) hostSettings(indent string) string {
	capabilities := `"pull", "resolve"`
	if m.Containerd.AtLeast(2, 2) {
		capabilities += `, "referrers"`
	}
	text := fmt.Sprintf("%scapabilities = [%s]\n", indent, capabilities)
	if m.Containerd.AtLeast(2, 1) {
		text += fmt.Sprintf("%sdial_timeout = %q\n", indent, dialTimeout)
	}
	text += m.TLS.hostSettings(indent)
	if m.Authorization != "" {
		text += fmt.Sprintf("%sheader = {Authorization = [%q]}\n", indent, m.Authorization)
	}
	return text
}

// dialTimeout is how long a node waits for a Larder that does not run. Containerd
// waits so before each request, since it remembers nothing. On the node itself a
// connection is made or refused at once; elsewhere this is enough for a packet that
// is lost and sent again after a second.
const dialTimeout = "2s"

// newFile returns a hosts.toml that has nothing but the mirror. It names the folder's
// certificate files in Docker's format, which containerd reads by itself only if
// there is no hosts.toml; they are for the registry.
func (m Mirror) newFile(folderIsNew bool, certs certificates) string {
	var b strings.Builder
	fmt.Fprintln(&b, newFileMark)
	if folderIsNew {
		fmt.Fprintln(&b, newFolderMark)
	}
	fmt.Fprintln(&b)
	if text := certs.toml(); text != "" && !m.Only {
		fmt.Fprintf(&b, "%s\n", text)
	}
	b.WriteString(m.block())
	return b.String()
}

const (
	newFileMark   = `# Written by "larder mirror"; "larder mirror --remove" takes it away.`
	newFolderMark = `# The folder was made for it.`
)

// cut removes the block from a file, and reports whether there was one.
func cut(text string) (rest string, found bool) {
	head, tail, found := strings.Cut(text, blockBegin+"\n")
	if !found {
		return text, false
	}
	_, tail, found = strings.Cut(tail, blockEnd+"\n")
	return head + tail, found
}
