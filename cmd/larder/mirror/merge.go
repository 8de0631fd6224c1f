package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// merge inserts the block into a file that Larder did not write, before its other
// hosts, since the first host is asked first. It does not change a file that names
// the mirror already.
func merge(m Mirror, original string) (string, error) {
	before, err := readHosts(original)
	if err != nil {
		if strings.HasPrefix(original, byteOrderMark) {
			return "", errors.New("it begins with a byte order mark, which containerd 2 cannot read: save it without")
		}
		return "", fmt.Errorf("it is not valid TOML: %w", err)
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
			return merged, nil // so the block is not inside an array
		}
	}
	return "", errors.New("its hosts are not tables of the form [host.\"https://…\"]")
}

// byteOrderMark is what some editors put at the beginning of a UTF-8 file.
const byteOrderMark = "\ufeff"

// readHosts returns the settings of each host in a file.
func readHosts(text string) (map[string]any, error) {
	file, err := readFile(text)
	return file.Host, err
}

// hostsToml is what matters of a hosts.toml.
type hostsToml struct {
	Server string         `toml:"server"` // is asked last; empty means the registry
	Host   map[string]any `toml:"host"`
}

func readFile(text string) (file hostsToml, err error) {
	err = toml.Unmarshal([]byte(text), &file)
	return file, err
}

// names reports whether a node that reads the file asks a URL.
func (h hostsToml) names(url string) bool { return h.Host[url] != nil || h.Server == url }

// hasOnly reports whether it asks no other.
func (h hostsToml) hasOnly(url string) bool {
	for host := range h.Host {
		if host != url {
			return false
		}
	}
	return h.Server == url
}

// tableLines returns the offsets of the lines at which the top-level keys may end,
// and of the end of the file. It returns none if a host that is not a table comes
// first.
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

// certificates are the certificate files in a registry's folder, named as Docker
// names them.
type certificates struct {
	ca      []string
	clients [][2]string // certificate and key
}

// findCertificates returns each *.crt, and each *.cert that has a *.key.
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

// toml returns the lines that name them for the registry itself. Containerd resolves
// relative names from the folder of the file.
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
