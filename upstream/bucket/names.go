package bucket

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// content is a blob or a manifest of an upstream.
type content struct {
	host   string
	digest digest.Digest
}

// names are those of objects, below a prefix that is empty or ends with a slash.
type names string

// newNames returns the names below a prefix as the configuration has it.
func newNames(prefix string) names {
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return names(prefix)
}

// of returns the folder of an upstream. Its host may have a port, and not every store takes colons.
func (n names) of(host string) string { return string(n) + strings.ReplaceAll(host, ":", "_") }

func (n names) content(c content) string {
	hex := c.digest.Encoded()
	return n.of(c.host) + "/blobs/" + c.digest.Algorithm().String() + "/" + hex[:2] + "/" + hex
}

// record returns the name of a record. No repository has a part "@".
func (n names) record(r record) string {
	if r.Tag != "" {
		return n.of(r.Upstream) + "/tags/" + r.Repository + "/@/" + r.Tag
	}
	return n.of(r.Upstream) + "/members/" + r.Repository + "/@/" + r.Digest.Algorithm().String() + "-" + r.Digest.Encoded()
}

// probeName is the name of the object that shows whether the store heeds conditions, below the prefix.
const probeName = "larder-probe"

func (n names) probe() string { return string(n) + probeName }
