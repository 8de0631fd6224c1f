// Package mirror has container runtimes pull through Larder. For containerd it
// writes hosts.toml files, in such a way that they can be taken away again to
// the letter, and finds out whether a node would heed them; for other runtimes
// it writes what is to be pasted into their configuration.
//
// How containerd reads these files is documented in docs/hosts.md of
// containerd/containerd.
package mirror

import (
	"fmt"
	"strings"
)

// Mirror is what a node is told about Larder.
type Mirror struct {
	// URL is where the node reaches Larder: http://127.0.0.1:5000.
	URL string
	// Registries are the hosts whose images are pulled through Larder, as they
	// stand in the names of images.
	Registries []string
	// Default has every other registry pulled through Larder too, unless it has
	// a folder of its own. Larder refuses what it is not configured for, and the
	// node then asks the registry itself.
	Default bool
	// Containerd is the version of the one who will read the files. The zero
	// value stands for any that is in use.
	Containerd Version
}

// defaultFolder is what containerd reads for a registry without a folder.
const defaultFolder = "_default"

// folders returns the names of the folders that the mirror needs.
func (m Mirror) folders() []string {
	folders := append([]string(nil), m.Registries...)
	if m.Default {
		folders = append(folders, defaultFolder)
	}
	return folders
}

// The lines around what is ours in a file that has more than that.
const (
	blockBegin = "# larder mirror: begin"
	blockEnd   = "# larder mirror: end"
)

// block is the table that sends pulls to Larder. There are no settings of TLS in
// it: with any, containerd tries an http URL by https first.
func (m Mirror) block() string {
	var b strings.Builder
	fmt.Fprintln(&b, blockBegin)
	fmt.Fprintf(&b, "[host.%q]\n", m.URL)
	capabilities := `"pull", "resolve"`
	if m.Containerd.AtLeast(2, 2) {
		capabilities += `, "referrers"`
	}
	fmt.Fprintf(&b, "  capabilities = [%s]\n", capabilities)
	if m.Containerd.AtLeast(2, 1) {
		fmt.Fprintf(&b, "  dial_timeout = %q\n", dialTimeout)
	}
	fmt.Fprintln(&b, blockEnd)
	return b.String()
}

// dialTimeout is how long a node waits for a Larder that is not there, before each
// request anew: containerd remembers nothing. On the node itself a connection is
// made or refused at once; elsewhere this is enough for a packet that is lost and
// sent again after a second.
const dialTimeout = "2s"

// newFile is a hosts.toml that has nothing but ours. What the folder has of
// Docker's certificate files must be named in it: containerd reads them by
// itself only where there is no hosts.toml.
func (m Mirror) newFile(folderIsNew bool, certs certificates) string {
	var b strings.Builder
	fmt.Fprintln(&b, newFileMark)
	if folderIsNew {
		fmt.Fprintln(&b, newFolderMark)
	}
	fmt.Fprintln(&b)
	if text := certs.toml(); text != "" {
		fmt.Fprintf(&b, "%s\n", text)
	}
	b.WriteString(m.block())
	return b.String()
}

const (
	newFileMark   = `# Written by "larder mirror"; "larder mirror --remove" takes it away.`
	newFolderMark = `# The folder was made for it.`
)

// cut takes the block out of a file, and reports whether there was one.
func cut(text string) (rest string, found bool) {
	head, tail, found := strings.Cut(text, blockBegin+"\n")
	if !found {
		return text, false
	}
	_, tail, found = strings.Cut(tail, blockEnd+"\n")
	return head + tail, found
}
