package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// merge puts the block into a file that somebody else wrote, before its other
// hosts: the first is asked first. A file that names the mirror already stays as
// it is.
func (m Mirror) merge(original string) (string, error) {
	before, err := readHosts(original)
	if err != nil {
		return "", fmt.Errorf("containerd cannot read it either: %w", err)
	}
	if _, there := before[m.URL]; there {
		return original, nil
	}
	for _, at := range tableLines(original) {
		head := original[:at]
		if head != "" && !strings.HasSuffix(head, "\n") {
			head += "\n"
		}
		merged := head + m.block() + original[at:]
		if after, err := readHosts(merged); err == nil && len(after) == len(before)+1 {
			return merged, nil // and not in the middle of an array
		}
	}
	return "", errors.New("its hosts are not tables of the form [host.\"https://…\"]")
}

// readHosts returns what a file says of each host.
func readHosts(text string) (map[string]any, error) {
	var file struct {
		Host map[string]any `toml:"host"`
	}
	err := toml.Unmarshal([]byte(text), &file)
	return file.Host, err
}

// tableLines are the offsets of the lines at which the top-level keys may end,
// and of the end. There is none behind a host that is not a table.
func tableLines(text string) []int {
	var lines []int
	at := 0
	for line := range strings.Lines(text) {
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "["):
			lines = append(lines, at)
		case strings.HasPrefix(trimmed, "host") && len(lines) == 0:
			return nil
		}
		at += len(line)
	}
	return append(lines, at)
}

// certificates are the files by Docker's pattern in a registry's folder.
type certificates struct {
	ca      []string
	clients [][2]string // certificate and key
}

// findCertificates looks for *.crt and for *.cert with *.key beside it.
func findCertificates(dir string) (certs certificates, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return certs, nil
	}
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".crt":
			certs.ca = append(certs.ca, name)
		case ".cert":
			key := strings.TrimSuffix(name, ".cert") + ".key"
			if _, err := os.Stat(filepath.Join(dir, key)); err == nil {
				certs.clients = append(certs.clients, [2]string{name, key})
			}
		}
	}
	return certs, err
}

// toml names them for the registry itself. Containerd looks for relative names
// beside the file.
func (c certificates) toml() string {
	var b strings.Builder
	if len(c.ca) > 0 {
		fmt.Fprintf(&b, "ca = [%s]\n", quoted(c.ca))
	}
	if len(c.clients) > 0 {
		var pairs []string
		for _, pair := range c.clients {
			pairs = append(pairs, "["+quoted(pair[:])+"]")
		}
		fmt.Fprintf(&b, "client = [%s]\n", strings.Join(pairs, ", "))
	}
	return b.String()
}

func quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(all, ", ")
}
